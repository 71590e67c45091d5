"""How often a test set was used: each look at it makes the next score a little less honest."""

import hashlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.files import join
from store.models import list_versions, read_card


def name_test_set(track_ids: Iterable[str]) -> str:
    """Name a set of tracks: the same tracks in any order have the same name."""
    return hashlib.sha256("\n".join(sorted(track_ids)).encode()).hexdigest()[:12]


def record_test_use(heard: pa.Table, models: str, heard_at: str) -> dict[str, Any]:
    """Say which test tracks were listened to, when, and which versions were scored on them before.

    Versions of other roots, and those made before their cards said so, are not known of.
    """
    test = heard.filter(pc.equal(heard["split"], "test"))
    name = name_test_set(test["track_id"].to_pylist())
    cards = ((version, read_card(join(models, version))) for version in list_versions(models))
    before = [version for version, card in cards if card.get("test_use", {}).get("test_set") == name]
    return {"test_set": name, "tracks": len(test), "heard_at": heard_at, "versions_before": before}
