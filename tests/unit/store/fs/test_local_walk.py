"""The files of a folder: each one once, in order, and what cannot be used with its reason."""

import os
import shutil
import socket
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.fs.listing import FoundFile, PathFilter, list_files, stream_files
from store.fs.signatures import read_signature
from tests.support.audio_folders import write_files


def paths(source: object) -> list[str]:
    return [file.path for file in stream_files(str(source))]


def problems(source: object, **options) -> dict[str, str | None]:
    return {file.path: file.problem for file in stream_files(str(source), **options)}


class PlainMp3(PathFilter):
    """Only .mp3 files outside of folders that begin with a dot."""

    def includes(self, path: str) -> bool:
        return not any(name.startswith(".") for name in path.split("/")) and path.endswith(("/", ".mp3"))


# Links


def test_a_link_to_what_is_listed_anyway_is_passed_over(tmp_path):
    write_files(tmp_path, ["a/x.mp3", "b/y.mp3"])
    (tmp_path / "link.mp3").symlink_to("a/x.mp3")
    (tmp_path / "again.mp3").symlink_to(tmp_path / "link.mp3")
    (tmp_path / "b/folder").symlink_to(tmp_path / "a")
    (tmp_path / "a/up").symlink_to(tmp_path)
    assert paths(tmp_path) == ["a/x.mp3", "b/y.mp3"]


def test_a_link_to_what_is_not_listed_otherwise_is_followed(tmp_path):
    write_files(tmp_path, [".git/annex/objects/f3a", ".git/annex/tree/z.mp3"], b"abcd")
    (tmp_path / "song.mp3").symlink_to(".git/annex/objects/f3a")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(".git/annex/tree")
    (tmp_path / ".git/annex/tree/round").symlink_to("../tree")
    (tmp_path / ".git/annex/tree/up").symlink_to("..")
    found = list(stream_files(str(tmp_path), selection=PlainMp3()))
    assert [(file.path, file.size_bytes) for file in found] == [("one/z.mp3", 4), ("song.mp3", 4)]
    assert found[1].signature == read_signature(str(tmp_path / "song.mp3"))


def test_a_link_out_of_the_source_is_not_followed(tmp_path):
    write_files(tmp_path / "elsewhere", ["z.mp3"])
    write_files(tmp_path / "music", ["a.mp3"])
    write_files(tmp_path / "music2", ["b.mp3"])
    for name, target in (("out.mp3", "elsewhere/z.mp3"), ("near.mp3", "music2/b.mp3"), ("out", "elsewhere")):
        (tmp_path / "music" / name).symlink_to(tmp_path / target)
    assert problems(tmp_path / "music") == {
        "a.mp3": None,
        "near.mp3": "outside-root",
        "out.mp3": "outside-root",
        "out/": "outside-root",
    }


def test_the_source_itself_may_be_a_link(tmp_path):
    write_files(tmp_path / "real", ["a.mp3"])
    (tmp_path / "music").symlink_to("real")
    (tmp_path / "real/same.mp3").symlink_to("a.mp3")
    assert list(stream_files(str(tmp_path / "music"))) == [
        FoundFile("a.mp3", str(tmp_path / "music/a.mp3"), 0, read_signature(str(tmp_path / "real/a.mp3")))
    ]


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")
    (tmp_path / "nowhere.mp3").symlink_to("missing.mp3")
    (tmp_path / "round.mp3").symlink_to("round.mp3")
    (tmp_path / "piped.mp3").symlink_to("pipe.mp3")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp3"))
    assert problems(tmp_path) == {
        "nowhere.mp3": "broken-link",
        "pipe.mp3": "not-a-file",
        "round.mp3": "broken-link",
        "socket.mp3": "not-a-file",
    }


def test_names_that_are_not_utf_8_are_written_so_that_a_table_can_hold_them(tmp_path):
    write_files(tmp_path, ["caf\udce9/x.mp3", "caf\udce9.mp3", "café.mp3"])
    found = problems(tmp_path)
    assert found == {
        "caf\\udce9.mp3": "name-not-utf-8",
        "caf\\udce9/x.mp3": "name-not-utf-8",
        "café.mp3": None,
    }
    assert list(found) == sorted(found)


# What happens meanwhile, and what this user may not do


def test_what_vanishes_meanwhile_is_left_out(tmp_path):
    write_files(tmp_path, ["a.mp3", "b.mp3", "c/x.mp3", "d/y.mp3", "e.mp3"])
    files = stream_files(str(tmp_path))
    assert next(files).path == "a.mp3"
    (tmp_path / "b.mp3").unlink()
    shutil.rmtree(tmp_path / "c")
    shutil.rmtree(tmp_path / "d")
    (tmp_path / "d").write_bytes(b"")
    assert [file.path for file in files] == ["e.mp3"]


def test_a_folder_that_may_not_be_listed_is_named_and_the_rest_goes_on(open_folder, as_nobody):
    write_files(open_folder, ["a.mp3", "closed/x.mp3", "names only/y.mp3", "z.mp3"])
    (open_folder / "names only/link.mp3").symlink_to("y.mp3")
    (open_folder / "closed").chmod(0)
    (open_folder / "names only").chmod(0o744)
    as_nobody()
    assert problems(open_folder) == {
        "a.mp3": None,
        "closed/": "not-listable",
        "names only/link.mp3": "no-permission",
        "names only/y.mp3": "no-permission",
        "z.mp3": None,
    }


def test_a_listing_of_all_files_names_the_folder_that_may_not_be_listed(open_folder, as_nobody):
    write_files(open_folder, ["a.mp3", "closed/x.mp3"])
    (open_folder / "closed").chmod(0)
    as_nobody()
    with pytest.raises(PermissionError, match="closed"):
        list_files(str(open_folder))


def test_a_source_that_may_not_be_listed_is_an_error(open_folder, as_nobody):
    open_folder.chmod(0o700)
    as_nobody()
    if os.getuid() != 0:
        open_folder.chmod(0)
    with pytest.raises(PermissionError):
        paths(open_folder)
    os.seteuid(os.getuid())
    open_folder.chmod(0o700)


# Any tree, and a large one

NAMES = st.text(st.sampled_from("ab-.é0 "), min_size=1, max_size=3).filter(lambda name: name.strip("."))


@settings(max_examples=60)
@given(tree=st.recursive(st.none(), lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=15))
def test_any_tree_comes_whole_and_in_order(tree):
    def lay(folder: str, below: dict[str, object]) -> None:
        os.mkdir(folder)
        for name, content in below.items():
            if content is None:
                Path(folder, name).write_bytes(b"")
            else:
                lay(f"{folder}/{name}", content)

    with tempfile.TemporaryDirectory() as root:
        lay(f"{root}/music", tree or {})
        there = [str(path.relative_to(f"{root}/music")) for path in Path(root, "music").rglob("*")]
        assert paths(f"{root}/music") == sorted(name for name in there if Path(root, "music", name).is_file())


def test_what_is_held_does_not_grow_with_the_number_of_files(tmp_path):
    def peak(folders: int) -> int:
        root = tmp_path / str(folders)
        write_files(root, [f"{folder:03}/{file}.mp3" for folder in range(folders) for file in range(20)])
        tracemalloc.start()
        try:
            assert sum(1 for _ in stream_files(str(root))) == 20 * folders
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(10)
    assert peak(100) < few + 90 * 200  # the names of the folders: the entries of one folder are held
