"""How often a test set was used: each look at it makes the next score a little less honest."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.fs.files import join
from store.fs.parquet import read_table
from store.model_registry import list_versions


def hash_test_set(track_ids: Iterable[str]) -> str:
    """Name a set of tracks: the same tracks in any order have the same name."""
    return hashlib.sha256("\n".join(sorted(track_ids)).encode()).hexdigest()[:12]


def record_test_use(predictions: pa.Table, models: str, evaluated_at: str) -> dict[str, Any]:
    """Say which test tracks were listened to, when, and which versions were scored on how many of them before.

    Versions of other roots, and those that did not keep what they heard, are not known of.
    """
    track_ids = _test_tracks(predictions)
    before = []
    for version in list_versions(models):
        try:
            former = read_table(
                join(models, version, "report/held_out_predictions.parquet"), ("track_id", "split")
            )
            tracks = int(pc.sum(pc.is_in(track_ids, value_set=_test_tracks(former)), min_count=0).as_py())
        except (OSError, LookupError, pa.ArrowException):
            continue
        if tracks:
            before.append({"version": version, "tracks": tracks})
    name = hash_test_set(track_ids.to_pylist())
    return {
        "test_set": name,
        "tracks": len(track_ids),
        "evaluated_at": evaluated_at,
        "earlier_versions": before,
    }


def earlier_versions(use: Mapping[str, Any]) -> list[tuple[str, int]]:
    """List the earlier versions that `record_test_use` found, each with how many of the test tracks it heard.

    Older cards list bare names: of versions that were scored on the whole of this test set.
    """
    return [
        (each, use["tracks"]) if isinstance(each, str) else (each["version"], each["tracks"])
        for each in use["earlier_versions"]
    ]


def _test_tracks(predictions: pa.Table) -> pa.Array:
    return predictions.filter(pc.equal(predictions["split"], "test"))["track_id"].combine_chunks()
