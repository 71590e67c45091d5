"""How often a test set was used: each use makes the next score a little too optimistic."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.errors import BadInput
from store.fs.files import join
from store.model_registry import list_versions
from training.evaluation.held_out_predictions import read_held_out_predictions, select_split


def hash_test_set(track_ids: Iterable[str]) -> str:
    """Return a hash of a set of tracks, whatever their order."""
    return hashlib.sha256("\n".join(sorted(track_ids)).encode()).hexdigest()[:12]


def record_test_use(predictions: pa.Table, models: str, evaluated_at: str) -> dict[str, Any]:
    """Return which test tracks are scored, when, and how many of them each earlier version was scored on.

    Versions in other folders, and those without their held-out predictions, are not counted.
    """
    track_ids = _test_track_ids(predictions)
    earlier = []
    for version in list_versions(models):
        try:
            table = read_held_out_predictions(join(models, version), ("track_id", "split"))
        except (OSError, BadInput):
            continue
        shared = pc.is_in(track_ids, value_set=_test_track_ids(table))
        if tracks := int(pc.sum(shared, min_count=0).as_py()):
            earlier.append({"version": version, "tracks": tracks})
    return {
        "test_set": hash_test_set(track_ids.to_pylist()),
        "tracks": len(track_ids),
        "evaluated_at": evaluated_at,
        "earlier_versions": earlier,
    }


def earlier_versions(use: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the earlier versions that `record_test_use` found, each with its number of shared test tracks."""
    return [(each["version"], each["tracks"]) for each in use["earlier_versions"]]


def _test_track_ids(predictions: pa.Table) -> pa.Array:
    return select_split(predictions, "test")["track_id"].combine_chunks()
