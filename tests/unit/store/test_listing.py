import zipfile
from pathlib import Path

import fsspec
import pytest

from store.listing import below, find_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "music/a/b").mkdir(parents=True)
    (tmp_path / "music/a/b/x.mp3").write_bytes(b"abc")
    (tmp_path / "music/y.txt").write_bytes(b"")
    return tmp_path / "music"


def test_all_files_are_listed_with_their_sizes(folder):
    assert find_files(str(folder)) == {"a/b/x.mp3": 3, "y.txt": 0}
    assert find_files(f"file://{folder}/") == {"a/b/x.mp3": 3, "y.txt": 0}


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/z.mp3").write_bytes(b"abcd")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "a/up").symlink_to(folder)
    (folder / "nowhere.mp3").symlink_to(tmp_path / "missing")
    assert find_files(str(folder)) == {"a/b/x.mp3": 3, "linked/z.mp3": 4, "nowhere.mp3": None, "y.txt": 0}


def test_other_file_systems_are_listed_too(tmp_path):
    fsspec.filesystem("memory").pipe("/listing/a/x.mp3", b"abc")
    assert find_files("memory://listing") == {"a/x.mp3": 3}
    with zipfile.ZipFile(tmp_path / "music.zip", "w") as archive:
        archive.writestr("a/x.mp3", b"abc")
    for root, path in (("zip://", "a/x.mp3"), ("zip://a", "x.mp3")):
        url = f"{root}::{tmp_path}/music.zip"
        assert find_files(url) == {path: 3}
        with fsspec.open(below(url, path)) as file:
            assert file.read() == b"abc"


@pytest.mark.parametrize("root", ["", "memory://no-such-folder"])
def test_a_missing_folder_is_not_taken_for_an_empty_one(tmp_path, root):
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        find_files(root or str(tmp_path / "no-such-folder"))
    assert find_files(str(tmp_path)) == {}


def test_a_file_is_no_folder(folder):
    fsspec.filesystem("memory").pipe("/listing/y.txt", b"abc")
    for url in (str(folder / "y.txt"), "memory://listing/y.txt"):
        with pytest.raises(NotADirectoryError, match=r"y\.txt"):
            find_files(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/music", "/music/a/x.mp3"),
        ("/", "/a/x.mp3"),
        ("s3://bucket/music/", "s3://bucket/music/a/x.mp3"),
        ("zip://::s3://bucket/m.zip", "zip://a/x.mp3::s3://bucket/m.zip"),
    ],
)
def test_below_keeps_the_kind_of_url(url, expected):
    assert below(url, "a/x.mp3") == expected
