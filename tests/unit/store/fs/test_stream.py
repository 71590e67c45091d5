"""What a source streams: every file once, in order, and what is odd with its reason."""

import os
import shutil
import socket
import tempfile
import tracemalloc
from pathlib import Path

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import BadInput
from store.fs import listing
from store.fs.stream import FoundFile, read_signature, stream_files
from tests.support.audio_folders import fill


def paths(source: object) -> list[str]:
    return [file.path for file in stream_files(str(source))]


def problems(source: object, **options) -> dict[str, str | None]:
    return {file.path: file.problem for file in stream_files(str(source), **options)}


def is_plain_mp3(path: str) -> bool:
    return not any(name.startswith(".") for name in path.split("/")) and path.endswith(("/", ".mp3"))


@pytest.fixture
def source(request, tmp_path):
    """Make a source of some names: on this machine's disk or in a bucket."""

    def make(names: list[str], content: bytes = b"abc") -> str:
        if request.param == "disk":
            return str(fill(tmp_path / "music", names, content))
        url = request.getfixturevalue("s3_url")
        for name in names:
            boto3.client("s3").put_object(Bucket=url.removeprefix("s3://"), Key=f"music/{name}", Body=content)
        return f"{url}/music"

    return make


everywhere = pytest.mark.parametrize("source", ["disk", "s3"], indirect=True)


@everywhere
def test_all_files_are_given_in_order_of_their_paths(source, monkeypatch):
    monkeypatch.setattr(listing, "KEYS_PER_PAGE", 2)
    names = ["b/x.mp3", "b.mp3", "b-side.mp3", "b/c/y.mp3", "b/c.mp3", "é.mp3", "Ö/ü.txt"]
    url = source(names)
    files = list(stream_files(url))
    assert [file.path for file in files] == sorted(names)
    for file in files:
        assert (file.url, file.size_bytes, file.problem) == (f"{url}/{file.path}", 3, None)
        assert file.signature == read_signature(file.url)


@everywhere
def test_only_what_is_wanted_is_given(source):
    url = source(["a.mp3", "b.txt", ".hidden/c.mp3", "d/.e.mp3", "d/f.mp3"])
    assert problems(url, include=is_plain_mp3) == {"a.mp3": None, "d/f.mp3": None}


@everywhere
def test_a_signature_changes_with_the_content(source):
    url = f"{source(['a.mp3'], b'abc')}/a.mp3"
    before = read_signature(url)
    source(["a.mp3"], b"abd")
    assert read_signature(url) != before


@everywhere
def test_a_file_that_is_gone_has_no_signature(source):
    with pytest.raises(FileNotFoundError):
        read_signature(f"{source(['a.mp3'])}/b.mp3")


@everywhere
def test_what_is_no_folder_is_told(source):
    url = source(["a.mp3"])
    with pytest.raises(NotADirectoryError):
        paths(f"{url}/a.mp3")
    with pytest.raises(FileNotFoundError):
        paths(f"{url}/missing")


def test_other_kinds_of_url_are_refused():
    with pytest.raises(BadInput, match="memory://music: tags are written to local files and S3 objects"):
        paths("memory://music")
    with pytest.raises(BadInput, match=r"http://host/a\.mp3: tags are written"):
        read_signature("http://host/a.mp3")


def test_keys_that_would_part_a_url_are_named(s3_url):
    for key in ("a::b.mp3", "a?versionId=b.mp3", "a?b.mp3"):
        boto3.client("s3").put_object(Bucket=s3_url.removeprefix("s3://"), Key=key, Body=b"")
    assert problems(s3_url) == {
        "a::b.mp3": "name-breaks-url",
        "a?b.mp3": None,
        "a?versionId=b.mp3": "name-breaks-url",
    }
    assert read_signature(f"{s3_url}/a?b.mp3")


def test_such_names_are_good_on_a_disk(tmp_path):
    fill(tmp_path, ["a::b.mp3", "c:/d.mp3"])
    assert problems(f"file://{tmp_path}/") == {"a::b.mp3": None, "c:/d.mp3": None}


def test_what_moved_but_kept_size_and_time_has_another_signature(tmp_path):
    fill(tmp_path, ["a.mp3"], b"abc")
    before, status = read_signature(str(tmp_path / "a.mp3")), (tmp_path / "a.mp3").stat()
    fill(tmp_path, ["b.mp3"], b"abd")
    os.utime(tmp_path / "b.mp3", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "b.mp3", tmp_path / "a.mp3")
    assert read_signature(str(tmp_path / "a.mp3")) != before


# Links


def test_a_link_to_what_is_listed_anyway_is_passed_over(tmp_path):
    fill(tmp_path, ["a/x.mp3", "b/y.mp3"])
    (tmp_path / "link.mp3").symlink_to("a/x.mp3")
    (tmp_path / "again.mp3").symlink_to(tmp_path / "link.mp3")
    (tmp_path / "b/folder").symlink_to(tmp_path / "a")
    (tmp_path / "a/up").symlink_to(tmp_path)
    assert paths(tmp_path) == ["a/x.mp3", "b/y.mp3"]


def test_a_link_to_what_is_not_listed_otherwise_is_followed(tmp_path):
    fill(tmp_path, [".git/annex/objects/f3a", ".git/annex/tree/z.mp3"], b"abcd")
    (tmp_path / "song.mp3").symlink_to(".git/annex/objects/f3a")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(".git/annex/tree")
    (tmp_path / ".git/annex/tree/round").symlink_to("../tree")
    (tmp_path / ".git/annex/tree/up").symlink_to("..")
    found = list(stream_files(str(tmp_path), include=is_plain_mp3))
    assert [(file.path, file.size_bytes) for file in found] == [("one/z.mp3", 4), ("song.mp3", 4)]
    assert found[1].signature == read_signature(str(tmp_path / "song.mp3"))


def test_a_link_out_of_the_source_is_not_followed(tmp_path):
    fill(tmp_path / "elsewhere", ["z.mp3"])
    fill(tmp_path / "music", ["a.mp3"])
    fill(tmp_path / "music2", ["b.mp3"])
    for name, target in (("out.mp3", "elsewhere/z.mp3"), ("near.mp3", "music2/b.mp3"), ("out", "elsewhere")):
        (tmp_path / "music" / name).symlink_to(tmp_path / target)
    assert problems(tmp_path / "music") == {
        "a.mp3": None,
        "near.mp3": "outside-root",
        "out.mp3": "outside-root",
        "out/": "outside-root",
    }


def test_the_source_itself_may_be_a_link(tmp_path):
    fill(tmp_path / "real", ["a.mp3"])
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
    fill(tmp_path, ["caf\udce9/x.mp3", "caf\udce9.mp3", "café.mp3"])
    found = problems(tmp_path)
    assert found == {
        "caf\\udce9.mp3": "name-not-utf-8",
        "caf\\udce9/x.mp3": "name-not-utf-8",
        "café.mp3": None,
    }
    assert list(found) == sorted(found)


# What happens meanwhile, and what this user may not do


def test_what_vanishes_meanwhile_is_left_out(tmp_path):
    fill(tmp_path, ["a.mp3", "b.mp3", "c/x.mp3", "d/y.mp3", "e.mp3"])
    files = stream_files(str(tmp_path))
    assert next(files).path == "a.mp3"
    (tmp_path / "b.mp3").unlink()
    shutil.rmtree(tmp_path / "c")
    shutil.rmtree(tmp_path / "d")
    (tmp_path / "d").write_bytes(b"")
    assert [file.path for file in files] == ["e.mp3"]


@pytest.fixture
def open_folder():
    """A folder that every user may look into, with us as a user who may not do all."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def as_nobody():
    """Root may look everywhere: call it when the files are made."""

    def step_down() -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)

    yield step_down
    os.seteuid(os.getuid())


def test_a_folder_that_may_not_be_listed_is_named_and_the_rest_goes_on(open_folder, as_nobody):
    fill(open_folder, ["a.mp3", "closed/x.mp3", "names only/y.mp3", "z.mp3"])
    (open_folder / "names only/link.mp3").symlink_to("y.mp3")
    (open_folder / "closed").chmod(0)
    (open_folder / "names only").chmod(0o744)
    as_nobody()
    assert problems(open_folder) == {
        "a.mp3": None,
        "closed/": "no-permission",
        "names only/link.mp3": "no-permission",
        "names only/y.mp3": "no-permission",
        "z.mp3": None,
    }


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
        fill(root, [f"{folder:03}/{file}.mp3" for folder in range(folders) for file in range(20)])
        tracemalloc.start()
        try:
            assert sum(1 for _ in stream_files(str(root))) == 20 * folders
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(10)
    assert peak(100) < few + 90 * 200  # the names of the folders: the entries of one folder are held
