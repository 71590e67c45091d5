"""How crops are read is checked before the first step, and what would be slow is reported."""

import numpy as np
import pyarrow as pa
import pytest

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from tests.support.held_frames import locations_of
from tests.support.snapshots import publish_mels
from training.loading.crops import Tracks
from training.loading.readers import GIB, ReadingPlan


def publish(root):
    mels = {"a": np.zeros((300, 8), np.float32)}
    return publish_mels(root, mels, pa.table({"track_id": list(mels)}), MelSettings(bands=8))


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (ReadingPlan("runs"), "reading runs: memory://.* is remote, .*; name a folder as cache_folder"),
        (
            ReadingPlan("runs", 1_000, "cache", 0.1),
            "cache_gib 0.1: to mix 1000 runs takes 0.16; raise it, or lower",
        ),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, monkeypatch, reading, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        reading.open_reader(publish(f"memory://{tmp_path}"))


def test_a_cache_that_is_too_small_for_a_random_order_is_reported():
    source = publish(f"memory://{np.random.default_rng().bytes(8).hex()}").reader
    tracks = Tracks((), locations_of([2 * GIB // 16] * 2), np.ones((2, 1), np.int8))
    assert "cache_gib 3) is smaller than the spectrograms to read (4 GiB)" in ReadingPlan(
        "random", 1, "somewhere", 3
    ).warning(tracks, source)
    for fine in (
        ReadingPlan("random", 1, "somewhere", 4),
        ReadingPlan("runs", 1, "somewhere", 3),
        ReadingPlan(),
    ):
        assert fine.warning(tracks, source) is None
