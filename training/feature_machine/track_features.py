"""The features of tracks: the mean over each track's crops. Bodies of Dask tasks, for tracks of a snapshot.

Axes: T tracks, F frames, M mel bands, D features, P patches, V values of a patch.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.features.crop_features import (
    compute_blocks,
    compute_patch_block,
    limit_dynamic_range,
    place_crops,
)
from preprocessing.features.musicnn import Musicnn
from preprocessing.features.patches import PatchDictionary, extract_patches
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.reader import Snapshot, open_snapshot

PATCHES_PER_TRACK = 60
BLOCK_SIZES_KEY = b"block_sizes"
BLOCKS_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("blocks", pa.list_(pa.float32())), ("patches", pa.list_(pa.float16()))]
)


def compute_stored_blocks(
    track_ids: Sequence[str], *, snapshot_url: str, musicnn: Musicnn | None = None
) -> pa.Table:
    """Compute the blocks that need no dictionary, and draw patches for one; return BLOCKS_SCHEMA.

    The sizes of the blocks are in the schema's metadata. The patches of a track do not depend on other tracks.
    """
    snapshot = open_snapshot(snapshot_url)
    mel = MelSettings.model_validate(snapshot.mel_settings)
    rows, sizes = [], {}
    for track_id in track_ids:
        crops = read_crops(snapshot, track_id, mel)
        blocks = [compute_blocks(mel_FM, mel, musicnn) for mel_FM in crops]
        sizes = {name: len(values) for name, values in blocks[0].items()}
        mean_D = np.mean([np.concatenate(list(each.values())) for each in blocks], axis=0)
        rows.append(
            {"track_id": track_id, "blocks": mean_D.astype(np.float32), "patches": _draw_patches(crops)}
        )
    schema = BLOCKS_SCHEMA.with_metadata({BLOCK_SIZES_KEY: json.dumps(sizes)})
    return pa.Table.from_pylist(rows, schema=schema)


def compute_stored_patch_blocks(
    track_ids: Sequence[str], *, snapshot_url: str, dictionary: PatchDictionary
) -> tuple[list[str], NDArray[np.float32]]:
    """Compute the block that needs a dictionary. Returns the tracks, and (T, D_i)."""
    snapshot = open_snapshot(snapshot_url)
    mel = MelSettings.model_validate(snapshot.mel_settings)
    features = [
        np.mean(
            [compute_patch_block(mel_FM, dictionary) for mel_FM in read_crops(snapshot, track_id, mel)],
            axis=0,
        )
        for track_id in track_ids
    ]
    return list(track_ids), np.array(features, np.float32).reshape(len(track_ids), -1)


def read_block_sizes(table: pa.Table) -> dict[str, int]:
    """Return the sizes of the blocks of a table of BLOCKS_SCHEMA, in order."""
    sizes: dict[str, int] = json.loads(table.schema.metadata[BLOCK_SIZES_KEY])
    return sizes


def read_crops(snapshot: Snapshot, track_id: str, mel: MelSettings) -> list[NDArray[np.float32]]:
    """Read the crops of a track. Raises: BadInput if they are not finite."""
    crops = [
        snapshot.mel_slice(track_id, start, frames)
        for start, frames in place_crops(snapshot.frames(track_id), mel)
    ]
    if not all(np.isfinite(crop).all() for crop in crops):
        raise BadInput(f"track {track_id}: its spectrogram is not finite; build it again")
    return crops


def _draw_patches(crops: Sequence[NDArray[np.float32]]) -> NDArray[np.float16]:
    patch_PV = np.concatenate([extract_patches(limit_dynamic_range(mel_FM)) for mel_FM in crops])
    return (
        patch_PV[np.random.default_rng(0).integers(len(patch_PV), size=PATCHES_PER_TRACK)]
        .astype(np.float16)
        .ravel()
    )
