import hashlib
import resource
from pathlib import Path

import numpy as np
import pytest

from preprocessing.build.settings import SpectrogramSettings
from preprocessing.build.shard_task import Track, build_shard, hash_files, reject_crashing_track
from preprocessing.decode import decode
from preprocessing.decode.sandbox import Sandbox
from preprocessing.decode.settings import ExcerptSettings, LimitSettings
from preprocessing.mel.transform import log_mel
from store.dataset.snapshots import latest_snapshot, publish, put_catalogue
from store.reader import open_snapshot

MUSIC = "tests/data/demo_music/fma_small/200"
SETTINGS = SpectrogramSettings(encoding="float32")
LIMITS = LimitSettings()


def track(number, **more):
    return Track(f"{200_000 + number}", f"{MUSIC}/{200_000 + number}.mp3", **more)


def build(tracks, root, settings=SETTINGS):
    return build_shard(tracks, settings=settings, limits=LIMITS, root=str(root))


def publish_built(root, built, settings=SETTINGS):
    publish(
        root,
        parent=latest_snapshot(root),
        shards=[built.shard],
        index=built.index,
        catalogue=put_catalogue(root, built.index.select(["track_id"])),
        recipe=settings.recipe(),
        settings={},
    )
    return open_snapshot(root)


def test_a_batch_becomes_a_shard_and_a_row_for_every_track(tmp_path):
    tracks = [track(1, signature="as it is now"), track(49), track(2), track(50), track(51)]
    built = build(tracks, tmp_path)
    rows = {row["track_id"]: row for row in built.index.to_pylist()}
    assert {track_id: (row["status"], row["reason"]) for track_id, row in rows.items()} == {
        "200001": ("ok", None),
        "200049": ("rejected", "empty"),
        "200002": ("ok", None),
        "200050": ("rejected", "not-audio"),
        "200051": ("rejected", "truncated"),
    }
    assert rows["200001"]["decoded_s"] == pytest.approx(24, abs=0.1)
    assert rows["200001"]["signature"] == "as it is now"
    assert rows["200001"]["sha256"] == hashlib.sha256(Path(track(1).url).read_bytes()).digest()
    snapshot = publish_built(str(tmp_path), built)
    wave_S = decode(track(2).url, sample_rate_hz=22_050)
    np.testing.assert_array_equal(snapshot.mel("200002"), log_mel(wave_S, SETTINGS.mel))
    assert snapshot.frames("200002") == rows["200002"]["frames"]


def test_a_batch_of_broken_files_leaves_no_shard(tmp_path):
    built = build([track(49), track(50)], tmp_path)
    assert built.shard is None
    assert built.index["status"].to_pylist() == ["rejected", "rejected"]
    assert list(tmp_path.iterdir()) == []


def test_the_same_batch_twice_gives_the_same_rows_under_another_name(tmp_path):
    one, other = (build([track(3)], tmp_path) for _ in range(2))
    assert one.shard.name != other.shard.name
    rows = [publish_built(str(tmp_path), built).mel("200003") for built in (one, other)]
    np.testing.assert_array_equal(*rows)


def test_an_excerpt_is_what_it_says(tmp_path):
    settings = SpectrogramSettings(encoding="float32", excerpt=ExcerptSettings(start_s=5, duration_s=3))
    built = build([track(4)], tmp_path, settings)
    snapshot = publish_built(str(tmp_path), built, settings)
    wave_S = decode(track(4).url, sample_rate_hz=22_050, start_s=5, duration_s=3)
    np.testing.assert_array_equal(snapshot.mel("200004"), log_mel(wave_S, settings.mel))
    assert built.index["decoded_s"].to_pylist() == pytest.approx([3.0])
    assert built.index["sha256"].to_pylist() == [None], "hashing all of it would cost more than the excerpt"


def test_a_disk_that_fails_raises_and_leaves_nothing(tmp_path):
    (tmp_path / "shards").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="shards"):
        build([track(1)], tmp_path)


def test_files_are_hashed_and_what_cannot_be_read_has_no_hash():
    expected = hashlib.sha256(Path(track(1).url).read_bytes()).digest()
    assert hash_files([track(1), track(77)]) == [expected, None]


def test_a_track_that_ends_its_worker_is_rejected_with_the_reason():
    built = reject_crashing_track(track(1, signature="s"))
    (row,) = built.index.to_pylist()
    assert (row["status"], row["reason"], row["signature"]) == ("rejected", "decoder-killed", "s")


def test_a_long_track_needs_no_more_memory_than_a_short_one(tmp_path):
    """MP3 frames may be laid end to end: an hour and a half of music, which is 64 MiB of spectrogram."""
    whole = Path(track(1).url).read_bytes()
    info = whole.index(b"Info" if b"Info" in whole[:400] else b"Xing")
    (tmp_path / "long.mp3").write_bytes(whole[whole.index(b"\xff", info) :] * 225)
    sandbox = Sandbox(LimitSettings(memory_gib=0.06))
    spooled, pieces = sandbox.decode_mel(tmp_path / "long.mp3", SETTINGS.mel, SETTINGS.excerpt)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(len(piece_FM) for piece_FM in pieces) == spooled.frames > 200_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10, "in KiB"
    assert spooled.decoded_s == pytest.approx(5400, rel=0.01)
    sandbox.close()
