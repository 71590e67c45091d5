import errno
import os
import threading
import uuid
import zipfile

import pytest

from store.errors import BadInput
from store.fs import files
from store.fs.files import (
    absolute,
    exists,
    is_file,
    join,
    list_names,
    local_path,
    open_for_reading,
    put_if_absent,
    read_bytes,
    replacing,
    split_zip_url,
    write_atomic,
)
from tests.support.disk_faults import faults


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request, tmp_path):
    match request.param:
        case "local":
            return str(tmp_path)
        case "memory":
            return f"memory://{uuid.uuid4().hex}"
        case "s3":
            return request.getfixturevalue("s3_url")


def test_what_is_written_is_read_and_replaced(folder):
    url = join(folder, "a", "b.json")
    assert not exists(url)
    write_atomic(url, b"one")
    write_atomic(url, b"two")
    assert read_bytes(url) == b"two"
    assert list_names(join(folder, "a")) == ["b.json"]


def test_a_folder_that_is_not_there_is_empty(folder):
    assert list_names(join(folder, "nothing")) == []


def test_the_first_to_create_wins_and_the_second_changes_nothing(folder):
    url = join(folder, "only-once")
    put_if_absent(url, b"first")
    with pytest.raises(FileExistsError):
        put_if_absent(url, b"second")
    assert read_bytes(url) == b"first"


def test_of_many_that_create_at_once_one_wins(tmp_path):
    for round_number in range(20):
        url = str(tmp_path / f"race-{round_number}")
        outcomes: list[bytes] = []
        barrier = threading.Barrier(8)

        def create(me, url=url, outcomes=outcomes, barrier=barrier):
            barrier.wait()
            try:
                put_if_absent(url, me)
                outcomes.append(me)
            except FileExistsError:
                pass

        threads = [threading.Thread(target=create, args=(f"writer {i}".encode(),)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [read_bytes(url)]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_draft(call, tmp_path, monkeypatch):
    url = str(tmp_path / "kept")
    write_atomic(url, b"old")

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(url, b"new")
    monkeypatch.undo()
    assert read_bytes(url) == b"old"
    assert list_names(str(tmp_path)) == ["kept"]


def test_a_block_that_raises_leaves_the_old_file(tmp_path):
    path = tmp_path / "music.mp3"
    path.write_bytes(b"old")

    def write_half():
        with replacing(path) as draft:
            assert draft.suffix == ".mp3"
            draft.write_bytes(b"half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list_names(str(tmp_path)) == ["music.mp3"]


def test_local_paths_become_absolute_and_urls_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("data/store") == str(tmp_path / "data" / "store")
    assert absolute("s3://bucket/store") == "s3://bucket/store"
    assert absolute("zip://a/x.mp3::music.zip") == f"zip://a/x.mp3::{tmp_path}/music.zip"
    assert absolute("zip://::s3://bucket/music.zip") == "zip://::s3://bucket/music.zip"


def test_a_file_with_colons_in_its_name_is_read(tmp_path):
    (tmp_path / "a::b.mp3").write_bytes(b"abc")
    assert read_bytes(f"{tmp_path}/a::b.mp3") == b"abc"
    with open_for_reading(f"{tmp_path}/a::b.mp3") as file:
        assert file.read() == b"abc"


def test_a_folder_is_no_file(folder):
    write_atomic(join(folder, "a", "b.json"), b"one")
    assert is_file(join(folder, "a", "b.json"))
    assert not is_file(join(folder, "a"))
    assert not is_file(join(folder, "missing"))


# Within archives


def test_an_archive_looks_like_a_folder(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "music.zip", "w") as packed:
        packed.mkdir("empty")
        packed.writestr("a/b/x.mp3", b"abc")
    archive = join(folder, "music.zip")
    write_atomic(archive, (tmp_path / "music.zip").read_bytes())
    assert list_names(f"zip://::{archive}") == ["a", "empty"]
    assert list_names(f"zip://a::{archive}") == ["b"]
    assert list_names(f"zip://missing::{archive}") == list_names(f"zip://::{archive}.not") == []
    there = ("", "a", "a/b", "a/b/x.mp3", "empty")
    assert all(exists(f"zip://{name}::{archive}") for name in there)
    assert not any(exists(f"zip://{name}::{archive}") for name in ("b", "a/x.mp3", "a/b/x"))
    assert not any(exists(f"zip://{name}::{archive}.not") for name in there)
    assert read_bytes(f"zip://a/b/x.mp3::{archive}") == b"abc"
    with pytest.raises(FileNotFoundError, match=r"zip://a/x\.mp3"):
        read_bytes(f"zip://a/x.mp3::{archive}")
    with pytest.raises(FileNotFoundError):
        read_bytes(f"zip://a/b/x.mp3::{archive}.not")


def test_what_lies_in_an_archive_has_no_path_of_its_own(tmp_path):
    assert local_path(f"zip://a.mp3::{tmp_path}/no.zip") is None  # without a look into the archive
    assert split_zip_url("zip://a/::s3://b/c.zip") == ("a", "s3://b/c.zip")
    assert split_zip_url(f"{tmp_path}/a.zip") is None
    with pytest.raises(BadInput, match="zip://a: names no archive"):
        split_zip_url("zip://a")


# From web servers


def test_a_file_comes_whole_from_a_server_without_ranges(http_url, tmp_path):
    content = bytes(range(256)) * 40_000  # 10 MB: more than a block of fsspec's
    (tmp_path / "served/x.mp3").write_bytes(content)
    assert read_bytes(f"{http_url}/x.mp3") == content
    assert read_as_stream(f"{http_url}/x.mp3") == content
    with pytest.raises(FileNotFoundError), open_for_reading(f"{http_url}/y.mp3"):
        pass


def read_as_stream(url: str) -> bytes:
    with open_for_reading(url) as file:
        return b"".join(iter(lambda: file.read(1 << 20), b""))


@pytest.mark.parametrize("read", [read_bytes, read_as_stream])
def test_an_error_response_of_a_web_server_is_an_error_of_reading(read, http_url):
    for status, kind in ((403, PermissionError), (500, OSError), (503, OSError)):
        with pytest.raises(kind, match=f"the server responds {status}"):
            read(f"{http_url}/status/{status}")
    with pytest.raises(OSError, match="ClientPayloadError"):
        read(f"{http_url}/cut-short")
    with pytest.raises(OSError, match="Cannot connect"):
        read("http://127.0.0.1:1/x.mp3")


@pytest.mark.parametrize(
    "ask", [exists, is_file, list_names, local_path, absolute, read_bytes, lambda url: write_atomic(url, b"")]
)
def test_a_url_of_an_unknown_kind_is_reported_in_one_line(ask):
    with pytest.raises(BadInput, match=r"^s3x://a/b: Protocol not known: s3x; wanted a local path, or a URL"):
        ask("s3x://a/b")


def test_the_disk_holds_new_folders_too(tmp_path):
    with faults() as met:
        write_atomic(str(tmp_path / "run" / "journal" / "part"), b"data")
    assert [name for name in met.calls if name in ("mkdir", "fsync", "replace")] == [
        *["mkdir", "fsync"] * 2,  # each folder's name
        *["fsync", "replace", "fsync"],
    ]
