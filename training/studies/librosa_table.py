"""librosa's features of tracks, from their audio: the body of a Dask task."""

from collections.abc import Sequence

import pyarrow as pa

from preprocessing.errors import BadAudio
from preprocessing.features.librosa_statistics import compute_file_statistics
from store.errors import BadInput
from training.selection.svm_baseline import FEATURES_SCHEMA

MAX_DURATION_S = 60.0  # of a track's beginning: FMA's own are of clips of 30 s


def compute_librosa_features(tracks: Sequence[tuple[str, str]]) -> pa.Table:
    """Compute the features of tracks, each an id and the URL of its audio; return FEATURES_SCHEMA.

    Raises: BadInput if a track cannot be decoded (any more), OSError if it cannot be read now.
    """
    rows = []
    for track_id, url in tracks:
        try:
            features_D = compute_file_statistics(url, MAX_DURATION_S)
        except BadAudio as why:
            raise BadInput(
                f"{url}: {why}; librosa's features need the audio of all tracks: put it back, or leave out the "
                "models that end in -librosa"
            ) from None
        rows.append({"track_id": track_id, "features": features_D.tolist()})
    return pa.Table.from_pylist(rows, schema=FEATURES_SCHEMA)
