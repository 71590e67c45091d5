"""How often a test set was used: each look at it makes the next score a little less honest."""

import hashlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.models import read_cards


def name_test_set(track_ids: Iterable[str]) -> str:
    """Name a set of tracks: the same tracks in any order have the same name."""
    return hashlib.sha256("\n".join(sorted(track_ids)).encode()).hexdigest()[:12]


def record_test_use(heard: pa.Table, models: str, heard_at: str) -> dict[str, Any]:
    """Say which test tracks were listened to, when, and which versions were scored on them before.

    Versions of other roots, those made before their cards said so, and those whose card is damaged are
    not known of: what others left behind is no reason to lose a training that is done.
    """
    test = heard.filter(pc.equal(heard["split"], "test"))
    name = name_test_set(test["track_id"].to_pylist())
    before = [version for version, card in read_cards(models) if _test_set_of(card) == name]
    return {"test_set": name, "tracks": len(test), "heard_at": heard_at, "versions_before": before}


def _test_set_of(card: dict[str, Any] | None) -> str | None:
    used = (card or {}).get("test_use")
    return used.get("test_set") if isinstance(used, dict) else None
