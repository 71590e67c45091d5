import os
import pickle
import random
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import BadInput, DamagedFile
from store.fs import zip_archive
from store.fs.files import open_for_reading, read_bytes
from store.fs.zip_archive import read_directory

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
NOISE = random.Random(0).randbytes(300_000)


def pack(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Record the archives whose directories are read."""
    paths: list[str] = []

    def open_and_record(file):
        paths.append(file.path)
        return zipfile.ZipFile(file)

    monkeypatch.setattr(zip_archive, "ZipFile", open_and_record)
    return paths


@pytest.mark.parametrize("method", METHODS)  # FMA's own are packed with bzip2
@pytest.mark.parametrize("at_once", [1 << 24, 1_000])
@pytest.mark.parametrize("place", ["local", "s3", "http", "memory"])
def test_files_come_out_as_they_went_in(place, method, at_once, tmp_path, monkeypatch, request):
    monkeypatch.setattr(zip_archive, "MAX_FETCH_BYTES", at_once)
    files = {"a/x.mp3": NOISE, "a/empty.mp3": b"", "ä.mp3": b"abc" * 1_000, "last.mp3": NOISE[:5_000]}
    content = pack(tmp_path / "music.zip", files, method).read_bytes()
    match place:
        case "local":
            url = str(tmp_path / "music.zip")
        case "http":
            url = f"{request.getfixturevalue('http_url')}/music.zip"
            (tmp_path / "served/music.zip").write_bytes(content)
        case "s3":
            url = f"{request.getfixturevalue('s3_url')}/music.zip"
        case "memory":
            url = f"memory://{tmp_path}/music.zip"
    if place in ("s3", "memory"):
        with fsspec.open(url, "wb") as file:
            file.write(content)
    for name, expected in files.items():
        assert read_bytes(f"zip://{name}::{url}") == expected
        with open_for_reading(f"zip://{name}::{url}") as file:
            assert file.read(1) + file.read() == expected


def test_the_directory_is_read_once(tmp_path, opened):
    many = dict.fromkeys(map(str, range(5_000)), b"")  # so that the others come while the first still reads
    path = pack(tmp_path / "music.zip", {"a.mp3": b"a", "b.mp3": b"b", **many})
    threads = [threading.Thread(target=read_bytes, args=(f"zip://a.mp3::{path}",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_bytes(f"zip://b.mp3::{path}") == b"b"
    assert opened == [str(path)]


def test_few_directories_are_kept(tmp_path, opened):
    paths = [
        pack(tmp_path / f"{n}.zip", {"a.mp3": b"a"}) for n in range(zip_archive.MAX_CACHED_DIRECTORIES + 1)
    ]
    for path in (*paths[:-1], paths[0], paths[-1], paths[0], paths[1]):  # the second was longest unused
        read_bytes(f"zip://a.mp3::{path}")
    assert opened == [str(path) for path in (*paths, paths[1])]


@pytest.mark.parametrize("place", ["replaced", "overwritten", "s3", "memory"])
def test_a_replaced_archive_is_noticed(place, tmp_path, request):
    old = pack(tmp_path / "old.zip", {"a.mp3": b"old", "b.mp3": b"b"})
    new = pack(tmp_path / "new.zip", {"b.mp3": b"b", "a.mp3": b"new"})
    assert old.stat().st_size == new.stat().st_size
    path = str(tmp_path / "old.zip")
    match place:
        case "s3":
            path = f"{request.getfixturevalue('s3_url')}/music.zip"
        case "memory":
            path = f"memory://{tmp_path}/music.zip"
    fsspec.open(path, "rb").fs.pipe_file(path, old.read_bytes())
    assert read_bytes(f"zip://a.mp3::{path}") == b"old"
    stamp = os.stat(old)
    if place == "replaced":
        os.utime(new, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        os.replace(new, old)
    else:
        fsspec.open(path, "rb").fs.pipe_file(path, new.read_bytes())
        os.utime(old, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert read_bytes(f"zip://a.mp3::{path}") == b"new"


def test_what_is_no_whole_archive_is_bad_input(tmp_path):
    whole = pack(tmp_path / "whole.zip", {f"{n}.mp3": b"abc" for n in range(9)}).read_bytes()
    for content in (b"", b"<html></html>", whole[:-1], whole[: len(whole) // 2], whole[:40]):
        (tmp_path / "cut.zip").write_bytes(content)
        with pytest.raises(BadInput, match=r"cut\.zip: cannot be read as a zip archive \(.*\); wanted") as it:
            read_bytes(f"zip://1.mp3::{tmp_path}/cut.zip")
        assert not isinstance(it.value, DamagedFile)
        assert "\n" not in str(it.value)


def test_an_archive_on_a_server_without_ranges_is_bad_input(http_url, tmp_path):
    path = pack(tmp_path / "music.zip", {"a.mp3": NOISE * 10})
    (tmp_path / "served/music.ZIP").write_bytes(path.read_bytes())  # our server gives ranges of .zip only
    with pytest.raises(BadInput, match=r"music\.ZIP: cannot be read .*range requests"):
        read_bytes(f"zip://a.mp3::{http_url}/music.ZIP")


def test_a_server_that_fails_says_nothing_of_the_archive(http_url):
    with pytest.raises(OSError, match="the server responds 503"):
        read_bytes(f"zip://a.mp3::{http_url}/status/503")
    with pytest.raises(FileNotFoundError):
        read_bytes(f"zip://a.mp3::{http_url}/status/404")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["local", "memory"])
def test_damage_costs_one_file(place, method, tmp_path):
    path = pack(tmp_path / "music.zip", {"a.mp3": NOISE, "b.mp3": b"b" * 99}, method)
    content = bytearray(path.read_bytes())
    content[100_000] ^= 0xFF
    path.write_bytes(content)
    url = f"memory://{path}" if place == "memory" else str(path)
    fsspec.open(url).fs.pipe_file(str(path), bytes(content))
    with pytest.raises(DamagedFile, match=r"zip://a\.mp3::.*: cannot be unpacked \(.*\); fetch"):
        read_bytes(f"zip://a.mp3::{url}")
    assert read_bytes(f"zip://b.mp3::{url}") == b"b" * 99


def test_a_file_whose_header_is_gone_or_that_is_encrypted_is_damaged(tmp_path):
    path = pack(tmp_path / "music.zip", {"a.mp3": b"a", "b.mp3": b"b"})
    content = bytearray(path.read_bytes())
    content[0] ^= 0xFF
    directory = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[directory + 8] |= 1
    path.write_bytes(content)
    for name, why in (("a.mp3", "no header at the position"), ("b.mp3", "it is encrypted")):
        with pytest.raises(DamagedFile, match=why):
            read_bytes(f"zip://{name}::{path}")


def test_errors_of_the_reader_are_not_taken_for_damage(tmp_path):
    path = pack(tmp_path / "music.zip", {"a.mp3": b"a"})
    with pytest.raises(OSError, match="No space left"), open_for_reading(f"zip://a.mp3::{path}"):
        raise OSError(28, "No space left on device")


def test_damage_survives_the_way_from_a_worker():
    assert str(pickle.loads(pickle.dumps(DamagedFile("a")))) == "a"


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_an_archive_with_flipped_bytes_gives_the_right_bytes_or_an_error(data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    files = {"a.mp3": NOISE[:300], "b.mp3": b"b" * 300}
    content = bytearray(pack(folder / "music.zip", files, data.draw(st.sampled_from(METHODS))).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path = folder / f"{uuid4().hex}.zip"
    path.write_bytes(content)
    for name, expected in files.items():
        with suppress(BadInput, FileNotFoundError):
            assert read_bytes(f"zip://{name}::{path}") == expected
    path.unlink()


def test_a_directory_is_lean(tmp_path):
    """A row of 40 bytes for each file, not a ZipInfo of 500."""
    path = pack(tmp_path / "music.zip", {f"{n}.mp3": b"" for n in range(100)})
    directory = read_directory(LocalFileSystem(), str(path))
    assert directory.columns.nbytes == 100 * 40
