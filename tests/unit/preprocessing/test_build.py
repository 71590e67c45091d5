import numpy as np
import pytest

from preprocessing.build import ExcerptSettings, SpectrogramSettings, Track, build_shard
from preprocessing.decode import decode
from preprocessing.mel import log_mel
from store.dataset import latest_snapshot, publish
from store.reader import open_snapshot

MUSIC = "tests/data/demo_music/fma_small/200"
SETTINGS = SpectrogramSettings(encoding="float32")


def track(number):
    return Track(f"{200_000 + number}", f"{MUSIC}/{200_000 + number}.mp3")


def publish_built(root, built, settings=SETTINGS):
    publish(
        root,
        parent=latest_snapshot(root),
        shards=[built.shard.name],
        index=built.index,
        catalogue=built.index.select(["track_id"]),
        recipe=settings.recipe(),
        settings={},
    )
    return open_snapshot(root)


def test_a_batch_becomes_a_shard_and_a_row_for_every_track(tmp_path):
    built = build_shard(
        [track(1), track(49), track(2), track(50), track(51)], settings=SETTINGS, root=str(tmp_path)
    )
    rows = {row["track_id"]: row for row in built.index.to_pylist()}
    assert {track_id: (row["status"], row["reason"]) for track_id, row in rows.items()} == {
        "200001": ("ok", None),
        "200049": ("rejected", "empty"),
        "200002": ("ok", None),
        "200050": ("rejected", "not-audio"),
        "200051": ("rejected", "truncated"),
    }
    assert rows["200001"]["decoded_s"] == pytest.approx(24, abs=0.1)
    snapshot = publish_built(str(tmp_path), built)
    wave_S = decode(track(2).url, sample_rate_hz=22_050)
    np.testing.assert_array_equal(snapshot.mel("200002"), log_mel(wave_S, SETTINGS.mel))
    assert snapshot.frames("200002") == rows["200002"]["frames"]


def test_a_batch_of_broken_files_leaves_no_shard(tmp_path):
    built = build_shard([track(49), track(50)], settings=SETTINGS, root=str(tmp_path))
    assert built.shard is None
    assert built.index["status"].to_pylist() == ["rejected", "rejected"]
    assert list(tmp_path.iterdir()) == []


def test_the_same_batch_twice_gives_the_same_rows_under_another_name(tmp_path):
    one, other = (build_shard([track(3)], settings=SETTINGS, root=str(tmp_path)) for _ in range(2))
    assert one.shard.sha256 == other.shard.sha256
    assert one.shard.name != other.shard.name


def test_an_excerpt_is_what_it_says(tmp_path):
    settings = SpectrogramSettings(encoding="float32", excerpt=ExcerptSettings(start_s=5, duration_s=3))
    built = build_shard([track(4)], settings=settings, root=str(tmp_path))
    snapshot = publish_built(str(tmp_path), built, settings)
    wave_S = decode(track(4).url, sample_rate_hz=22_050, start_s=5, duration_s=3)
    np.testing.assert_array_equal(snapshot.mel("200004"), log_mel(wave_S, settings.mel))
    assert built.index["decoded_s"].to_pylist() == pytest.approx([3.0])


def test_a_disk_that_fails_raises_and_leaves_nothing(tmp_path):
    (tmp_path / "shards").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="shards"):
        build_shard([track(1)], settings=SETTINGS, root=str(tmp_path))
