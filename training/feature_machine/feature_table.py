"""A table of all features of tracks, patches included, by a dictionary that was fitted on the same tracks.

Axes: T tracks, D features.

It depends on no label, so every fold of a cross-validation can use it. A model that is published has a dictionary of
its training tracks alone.
"""

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.features.patches import PatchDictionary
from training.feature_machine.fitting import assemble_features
from training.feature_machine.track_features import BLOCK_SIZES_KEY, read_block_sizes

FEATURE_TABLE_SCHEMA = pa.schema([("track_id", pa.string()), ("features", pa.list_(pa.float32()))])


def make_feature_table(
    blocks: pa.Table, patch_features: Mapping[str, NDArray[np.float32]], dictionary: PatchDictionary
) -> pa.Table:
    """Return FEATURE_TABLE_SCHEMA of the tracks of `blocks`; the sizes of the blocks are in the schema's metadata."""
    track_ids = blocks["track_id"].to_pylist()
    features_TD = assemble_features(blocks, patch_features, track_ids)
    sizes = read_block_sizes(blocks) | {"patches": dictionary.features}
    offsets = np.arange(len(track_ids) + 1, dtype=np.int32) * features_TD.shape[1]
    lists = pa.ListArray.from_arrays(offsets, features_TD.ravel())
    schema = FEATURE_TABLE_SCHEMA.with_metadata({BLOCK_SIZES_KEY: json.dumps(sizes)})
    return pa.table([pa.array(track_ids, pa.string()), lists], schema=schema)


def select_features(table: pa.Table, track_ids: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return the features of some tracks of a feature table. Shapes: (T, D)."""
    rows = pc.index_in(track_ids, value_set=table["track_id"].combine_chunks())
    features = table["features"].take(rows).combine_chunks()
    return np.asarray(
        features.flatten().to_numpy(zero_copy_only=False).reshape(len(track_ids), -1), np.float32
    )
