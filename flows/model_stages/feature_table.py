"""The stage of a table of all features, which the folds of a study share."""

from flows.cluster.client import Cluster
from flows.model_stages.features import compute_patch_features, hash_stored_tracks, load_blocks
from store.fs.files import absolute, exists, join, write_atomic
from store.fs.parquet import to_parquet
from store.reader import Snapshot
from training.feature_machine.feature_table import make_feature_table
from training.feature_machine.fitting import fit_patch_dictionary
from training.feature_machine.version_file import RECIPE

DICTIONARY_SEED = 0


def store_feature_table(cluster: Cluster, track_ids: list[str], snapshot: Snapshot, root: str) -> str:
    """Compute all features of tracks, unless `root` has them; return the URL of their table."""
    ordered = sorted(track_ids)
    url = join(absolute(root), "features", f"{hash_stored_tracks(snapshot, ordered)}-{RECIPE}-all.parquet")
    if not exists(url):
        blocks = load_blocks(cluster, ordered, snapshot, root)
        dictionary = fit_patch_dictionary(blocks, ordered, DICTIONARY_SEED)
        patches = compute_patch_features(cluster, ordered, snapshot, dictionary)
        write_atomic(url, to_parquet(make_feature_table(blocks, patches, dictionary)))
    return url
