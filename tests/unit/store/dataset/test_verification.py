"""Every byte of a real store counts: one that is flipped anywhere in a shard is found, and its tracks are named."""

import errno
import re

import numpy as np
import pytest

from store.dataset import verification
from store.dataset.checksums import checksum_file, chunk_ranges
from store.dataset.shards import CHUNK_FRAMES, OBJECT_FRAMES
from store.dataset.verification import verify
from store.fs.files import join, list_names, read_bytes, remove, write_atomic
from store.reader import open_snapshot
from tests.unit.store.dataset.test_snapshots import BANDS, add

LENGTHS = {
    "a": 700,
    "b": 600,
    "c": 3 * CHUNK_FRAMES,
}  # chunks of several tracks, and tracks of several chunks


def make_store(root):
    random = np.random.default_rng(0)
    add(root, {it: random.normal(-40, 9, (n, BANDS)).astype(np.float32) for it, n in LENGTHS.items()}, None)
    return open_snapshot(root)


def shard_file(root, path):
    (shard,) = (name for name in list_names(join(root, "shards")) if name != "zarr.json")
    return join(root, "shards", shard, *path.split("/"))


def flip(url, at):
    content = read_bytes(url)
    at %= len(content)
    write_atomic(url, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def tracks_of_chunk(chunk):
    start, stop, found = chunk * CHUNK_FRAMES, (chunk + 1) * CHUNK_FRAMES, []
    first = 0
    for track_id, frames in LENGTHS.items():
        if first < stop and start < first + frames:
            found.append(track_id)
        first += frames
    return found


def test_an_intact_store_has_no_damage(root):
    result = verify(make_store(root))
    assert (result.damages, result.files) == ((), 2)
    assert result.size_bytes == sum(len(read_bytes(shard_file(root, it))) for it in ("c/0/0", "zarr.json"))


def test_a_flipped_byte_names_the_tracks_of_its_chunk(root):
    snapshot = make_store(root)
    url = shard_file(root, "c/0/0")
    content = read_bytes(url)
    ranges = chunk_ranges(content, OBJECT_FRAMES // CHUNK_FRAMES)
    for chunk, (start, stop) in enumerate(ranges):
        if start == stop or chunk % 3 == 2:
            continue
        flip(url, (start + stop) // 2)
        (damage,) = verify(snapshot).damages
        assert list(damage.tracks) == tracks_of_chunk(chunk)
        assert "1 of" in damage.problem
        write_atomic(url, content)
    assert verify(snapshot).damages == ()


@pytest.mark.parametrize(
    ("path", "change", "problem"),
    [
        ("c/0/0", lambda url: flip(url, -2), "the index of its chunks is damaged"),
        ("c/0/0", lambda url: write_atomic(url, read_bytes(url)[:-100]), "bytes, .* were written"),
        ("c/0/0", lambda url: write_atomic(url, b""), "0 bytes, .* were written"),
        ("c/0/0", remove, "missing"),
        ("zarr.json", lambda url: flip(url, 40), "differs from what was written"),
        ("zarr.json", remove, "missing"),
    ],
)
def test_a_shard_that_cannot_be_read_names_all_its_tracks(tmp_path, path, change, problem):
    snapshot = make_store(str(tmp_path))
    change(shard_file(str(tmp_path), path))
    result = verify(snapshot)
    assert result.tracks == list(LENGTHS)
    assert len(result.damages) == 1
    assert re.search(problem, result.damages[0].problem)


def test_a_sector_that_cannot_be_read_is_damage_and_a_failing_server_is_not(tmp_path, monkeypatch):
    snapshot = make_store(str(tmp_path))

    def fail(number):
        def read(url):
            if url.endswith("c/0/0"):
                raise OSError(number, "failed", url)
            return read_bytes(url)

        monkeypatch.setattr(verification, "read_bytes", read)

    fail(errno.EIO)
    assert verify(snapshot).damages[0].problem == "cannot be read (failed)"
    fail(errno.ETIMEDOUT)
    with pytest.raises(OSError, match="failed"):
        verify(snapshot)


def test_what_was_built_again_does_not_need_the_damaged_bytes(tmp_path):
    root = str(tmp_path)
    snapshot = make_store(root)
    flip(shard_file(root, "c/0/0"), 0)
    (damage,) = verify(snapshot).damages
    mels = {it: np.zeros((LENGTHS[it], BANDS), np.float32) for it in damage.tracks}
    add(root, mels, snapshot.file)
    (unneeded,) = verify(open_snapshot(root)).damages
    assert unneeded.tracks == ()
    assert verify(snapshot).tracks == list(damage.tracks), "the older snapshot needs them"


def test_a_chunk_that_is_absent_has_the_checksum_of_nothing():
    index = np.full((2, 2), 2**64 - 1, "<u8")
    index[1] = 0, 3
    content = b"abc" + index.tobytes()
    content += checksum_file("zarr.json", index.tobytes(), chunk_frames=1, chunks=2).crc32c.to_bytes(
        4, "little"
    )
    file = checksum_file("c/2/0", content, chunk_frames=10, chunks=2)
    assert file.chunk_crc32c[0] == 0 != file.chunk_crc32c[1]
    assert file.first_frame == 40


def test_of_a_shard_of_two_objects_a_damaged_one_costs_its_own_tracks_and_a_missing_one_all(tmp_path):
    root = str(tmp_path)
    add(root, {it: np.zeros((n, BANDS), np.float32) for it, n in (("a", OBJECT_FRAMES), ("b", 9))}, None)
    url = shard_file(root, "c/1/0")
    flip(url, -1)
    assert verify(open_snapshot(root)).tracks == ["b"]
    remove(url)
    assert verify(open_snapshot(root)).tracks == ["a", "b"]
