import errno
import os
import threading
import uuid

import pytest

from store import files
from store.files import absolute, exists, join, list_names, put_if_absent, read_bytes, replacing, write_whole


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
    write_whole(url, b"one")
    write_whole(url, b"two")
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
    write_whole(url, b"old")

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(url, b"new")
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
