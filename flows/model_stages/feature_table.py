"""The stage of a table of all features, which the folds of a study share."""

import pyarrow as pa

from flows.cluster.client import Cluster
from flows.model_stages.features import compute_patch_features, load_blocks, store_once
from preprocessing.features.musicnn import Musicnn
from store.reader import Snapshot
from training.feature_machine.feature_table import make_feature_table
from training.feature_machine.fitting import fit_patch_dictionary
from training.feature_machine.version_file import recipe_of

DICTIONARY_SEED = 0


def store_feature_table(
    cluster: Cluster, track_ids: list[str], snapshot: Snapshot, root: str, musicnn: Musicnn | None
) -> str:
    """Compute all features of tracks, unless `root` has them; return the URL of their table."""
    ordered = sorted(track_ids)

    def compute() -> pa.Table:
        blocks = load_blocks(cluster, ordered, snapshot, root, musicnn)
        dictionary = fit_patch_dictionary(blocks, ordered, DICTIONARY_SEED)
        patches = compute_patch_features(cluster, ordered, snapshot, dictionary)
        return make_feature_table(blocks, patches, dictionary)

    return store_once(f"{recipe_of(musicnn)}-all", ordered, snapshot, root, compute)
