import os
import socket
import zipfile
from pathlib import Path

import boto3
import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import BadInput
from store.fs import listing
from store.fs.files import open_for_reading, read_bytes
from store.fs.listing import (
    LISTING_SCHEMA,
    FoundFile,
    PathFilter,
    child_url,
    child_urls,
    list_files,
    stream_files,
)
from store.fs.signatures import read_signature
from tests.support.audio_folders import write_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "music/a/b").mkdir(parents=True)
    (tmp_path / "music/a/b/x.mp3").write_bytes(b"abc")
    (tmp_path / "music/y.txt").write_bytes(b"")
    return tmp_path / "music"


def sizes(url: object) -> dict[str, int | None]:
    table = list_files(str(url))
    assert table.schema.equals(LISTING_SCHEMA)
    paths = table["path"].to_pylist()
    assert paths == sorted(paths)
    return dict(zip(paths, table["size_bytes"].to_pylist(), strict=True))


def signatures(url: object) -> list[str | None]:
    found: list[str | None] = list_files(str(url))["signature"].to_pylist()
    return found


def test_all_files_are_listed_with_their_sizes(folder):
    assert sizes(folder) == {"a/b/x.mp3": 3, "y.txt": 0}
    assert sizes(f"file://{folder}/") == {"a/b/x.mp3": 3, "y.txt": 0}


def test_a_signature_changes_with_the_file_and_only_then(folder):
    before = signatures(folder)
    stamp = (folder / "a/b/x.mp3").stat().st_mtime_ns
    assert before[0] == f"3-{stamp}"
    assert signatures(folder) == before
    os.utime(folder / "a/b/x.mp3", ns=(0, stamp + 1))
    assert signatures(folder) == [f"3-{stamp + 1}", before[1]]
    (folder / "y.txt").write_bytes(b"y")
    assert signatures(folder)[1] != before[1]


def test_more_files_than_a_chunk_are_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "ROWS_PER_CHUNK", 7)
    names = [f"{a}{b}/{c}.mp3" for a in "zyö" for b in ("", "-", "/q") for c in range(4)]
    assert list(sizes(write_files(tmp_path, names, b"x"))) == sorted(names)


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/z.mp3").write_bytes(b"abcd")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "a/up").symlink_to(folder)
    (folder / "nowhere.mp3").symlink_to(tmp_path / "missing")
    (folder / "round.mp3").symlink_to(folder / "round.mp3")
    (folder / "same.mp3").symlink_to(folder / "a/b/x.mp3")
    assert sizes(folder) == {
        "a/b/x.mp3": 3,
        "linked/z.mp3": 4,
        "nowhere.mp3": None,
        "round.mp3": None,
        "same.mp3": 3,
        "y.txt": 0,
    }


def test_a_folder_that_links_lead_to_is_listed_once(folder, tmp_path):
    (tmp_path / "elsewhere/in").mkdir(parents=True)
    (tmp_path / "elsewhere/in/z.mp3").write_bytes(b"abcd")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/home").symlink_to(folder / "a")
    (folder / "all").symlink_to(tmp_path)
    (folder / "again").symlink_to(tmp_path / "elsewhere/in")
    (folder / "0").symlink_to(folder / "a")
    assert sizes(folder) == {"a/b/x.mp3": 3, "again/z.mp3": 4, "y.txt": 0}


def test_pipes_and_sockets_have_no_size(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp3"))
    assert sizes(tmp_path) == {"pipe.mp3": None, "socket.mp3": None}
    assert signatures(tmp_path) == [None, None]


def test_a_name_that_is_not_utf_8_is_listed_with_its_odd_bytes(tmp_path):
    write_files(tmp_path, ["caf\udce9.mp3", "café.mp3"])
    assert list(sizes(tmp_path)) == ["caf\\udce9.mp3", "café.mp3"]


def test_other_file_systems_are_listed_too():
    fsspec.filesystem("memory").pipe("/listing/a/x.mp3", b"abc")
    assert sizes("memory://listing") == {"a/x.mp3": 3}
    assert signatures("memory://listing") == [None]


# Archives


def test_an_archive_is_listed_without_unpacking(tmp_path):
    with zipfile.ZipFile(tmp_path / "music.zip", "w") as archive:
        archive.mkdir("a")
        archive.writestr("a/x.mp3", b"abc")
        archive.writestr("ab/y.mp3", b"", zipfile.ZIP_DEFLATED)
    for root, found in (("zip://", {"a/x.mp3": 3, "ab/y.mp3": 0}), ("zip://a", {"x.mp3": 3})):
        url = f"{root}::{tmp_path}/music.zip"
        assert sizes(url) == found
        assert signatures(url)[0] == "3-352441c2"
        path = next(iter(found))
        assert read_bytes(child_url(url, path)) == b"abc"
        with open_for_reading(child_url(url, path)) as file:
            assert file.read(2) == b"ab"


def test_what_is_no_folder_of_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "music.zip", "w") as archive:
        archive.writestr("a/x.mp3", b"abc")
    with pytest.raises(NotADirectoryError, match=r"a/x\.mp3"):
        list_files(f"zip://a/x.mp3::{tmp_path}/music.zip")
    with pytest.raises(FileNotFoundError, match="zip://b::"):
        list_files(f"zip://b::{tmp_path}/music.zip")
    with pytest.raises(FileNotFoundError, match=r"no\.zip"):
        list_files(f"zip://::{tmp_path}/no.zip")
    with pytest.raises(BadInput, match=r"zip://a: names no archive"):
        list_files("zip://a")


def test_an_empty_archive_is_an_empty_folder(tmp_path):
    zipfile.ZipFile(tmp_path / "music.zip", "w").close()
    assert sizes(f"zip://::{tmp_path}/music.zip") == {}


# S3


def test_a_bucket_is_listed_with_its_etags(s3_url):
    s3 = boto3.client("s3")
    bucket = s3_url.removeprefix("s3://")
    for key in ("music/b/x.mp3", "music/a.mp3", "music/empty/", "musical/z.mp3"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else b"abc")
    assert sizes(f"{s3_url}/music") == sizes(f"{s3_url}/music/") == {"a.mp3": 3, "b/x.mp3": 3}
    assert len(sizes(s3_url)) == 3
    before = signatures(f"{s3_url}/music")
    assert before[0] == f"3-{s3.head_object(Bucket=bucket, Key='music/a.mp3')['ETag'].strip(chr(34))}"
    s3.put_object(Bucket=bucket, Key="music/a.mp3", Body=b"abd")  # seen at once: no listing is kept
    s3.put_object(Bucket=bucket, Key="music/c.mp3", Body=b"abc")
    after = signatures(f"{s3_url}/music")
    assert after[0] != before[0]
    assert after[1:] == [before[1], before[1]]


def test_a_bucket_of_several_pages(s3_url, monkeypatch):
    monkeypatch.setattr(listing, "KEYS_PER_PAGE", 2)
    for number in range(5):
        boto3.client("s3").put_object(
            Bucket=s3_url.removeprefix("s3://"), Key=f"music/{number}.mp3", Body=b""
        )
    assert list(sizes(f"{s3_url}/music")) == [f"{number}.mp3" for number in range(5)]


def test_what_is_no_folder_of_a_bucket(s3_url):
    boto3.client("s3").put_object(Bucket=s3_url.removeprefix("s3://"), Key="x.mp3", Body=b"abc")
    with pytest.raises(NotADirectoryError, match=r"x\.mp3"):
        list_files(f"{s3_url}/x.mp3")
    with pytest.raises(FileNotFoundError, match="missing"):
        list_files(f"{s3_url}/missing")
    with pytest.raises(FileNotFoundError):
        list_files("s3://no-such-bucket-anywhere")


# Web servers


def test_the_index_pages_of_a_web_server_are_followed(http_url, tmp_path):
    names = ["a b/c&d/x#1.mp3", "a b/50%.mp3", "a b/%41.mp3", "é?.mp3", "y.mp3"]
    write_files(tmp_path / "served/music", names, b"abc")
    write_files(tmp_path / "served", ["other.mp3"])
    for url in (f"{http_url}/music", f"{http_url}/music/"):
        assert sizes(url) == dict.fromkeys(sorted(names))
        assert signatures(url) == [None] * len(names)
        for name in names:
            assert read_bytes(child_url(url, name)) == b"abc"
            with open_for_reading(child_url(url, name)) as file:
                assert file.read() == b"abc"
    for folder in ("a b/c&d", "a%20b/c&d", "a%20b/c%26d/"):
        assert sizes(f"{http_url}/music/{folder}") == {"x#1.mp3": None}


def test_links_that_lead_out_of_the_folder_are_left_alone(http_url, tmp_path):
    write_files(tmp_path / "served/my music/in", ["x.mp3"])
    (tmp_path / "served/my music/index.html").write_text(
        '<a href="?C=M;O=A">by date</a> <a href="../">up</a> <a href="/">top</a> <a href="http://example.org/z.mp3">'
        '<a href="#top"> <a href="../other/y.mp3"> <a href="./in/">in</a> <a href="a&amp;b.mp3"> http://x.org/m.mp3'
        f'<a href="{http_url}/my%20music/whole.mp3"> <a href="/my%20music/"> <a href="/my%20music/rooted.mp3">'
        '<a href="gone/">'
    )
    for name in ("my music", "my%20music"):
        assert sorted(sizes(f"{http_url}/{name}")) == ["a&b.mp3", "in/x.mp3", "rooted.mp3", "whole.mp3"]


def test_what_is_no_folder_of_a_web_server(http_url, tmp_path):
    write_files(tmp_path / "served", ["x.mp3"], b"abc")
    (tmp_path / "served/empty").mkdir()
    assert sizes(f"{http_url}/empty") == {}
    with pytest.raises(NotADirectoryError, match=r"x\.mp3"):
        list_files(f"{http_url}/x.mp3")
    with pytest.raises(FileNotFoundError, match="missing"):
        list_files(f"{http_url}/missing")


@pytest.mark.parametrize("root", ["", "memory://no-such-folder"])
def test_a_missing_folder_is_not_taken_for_an_empty_one(tmp_path, root):
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        list_files(root or str(tmp_path / "no-such-folder"))
    assert sizes(tmp_path) == {}


def test_a_file_is_no_folder(folder):
    fsspec.filesystem("memory").pipe("/listing/y.txt", b"abc")
    for url in (str(folder / "y.txt"), "memory://listing/y.txt"):
        with pytest.raises(NotADirectoryError, match=r"y\.txt"):
            list_files(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/music", "/music/a%/x.mp3"),
        ("/", "/a%/x.mp3"),
        ("music::live", "music::live/a%/x.mp3"),
        ("s3://bucket/music/", "s3://bucket/music/a%/x.mp3"),
        ("https://host/music", "https://host/music/a%25/x.mp3"),
        ("zip://::s3://bucket/m.zip", "zip://a%/x.mp3::s3://bucket/m.zip"),
        ("zip://in::/m.zip", "zip://in/a%/x.mp3::/m.zip"),
    ],
)
def test_below_keeps_the_kind_of_url(url, expected):
    assert child_url(url, "a%/x.mp3") == expected


@given(paths=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
@pytest.mark.parametrize("url", ["/music", "http://host/m/", "zip://::/m.zip"])
def test_below_each_is_below_for_each(url, paths):
    column = pa.chunked_array([pa.array(paths[:2], pa.string()), pa.array(paths[2:], pa.string())])
    assert child_urls(url, column).to_pylist() == [child_url(url, path) for path in paths]


# One after the other


def paths(source: object) -> list[str]:
    return [file.path for file in stream_files(str(source))]


def problems(source: object, **options) -> dict[str, str | None]:
    return {file.path: file.problem for file in stream_files(str(source), **options)}


class PlainMp3(PathFilter):
    """Only .mp3 files outside of folders that begin with a dot."""

    def includes(self, path: str) -> bool:
        return not any(name.startswith(".") for name in path.split("/")) and path.endswith(("/", ".mp3"))


@pytest.fixture
def source(request, tmp_path):
    """Make a source of some names: on this machine's disk or in a bucket."""

    def make(names: list[str], content: bytes = b"abc") -> str:
        if request.param == "disk":
            return str(write_files(tmp_path / "music", names, content))
        url = request.getfixturevalue("s3_url")
        for name in names:
            boto3.client("s3").put_object(Bucket=url.removeprefix("s3://"), Key=f"music/{name}", Body=content)
        return f"{url}/music"

    return make


everywhere = pytest.mark.parametrize("source", ["disk", "s3"], indirect=True)


@everywhere
def test_all_files_are_streamed_in_order_of_their_paths(source, monkeypatch):
    monkeypatch.setattr(listing, "KEYS_PER_PAGE", 2)
    names = ["b/x.mp3", "b.mp3", "b-side.mp3", "b/c/y.mp3", "b/c.mp3", "é.mp3", "Ö/ü.txt"]
    url = source(names)
    files = list(stream_files(url))
    assert [file.path for file in files] == sorted(names)
    for file in files:
        assert (file.url, file.size_bytes, file.problem) == (f"{url}/{file.path}", 3, None)
        assert file.signature == read_signature(file.url)


@everywhere
def test_only_what_is_included_is_streamed(source):
    url = source(["a.mp3", "b.txt", ".hidden/c.mp3", "d/.e.mp3", "d/f.mp3"])
    assert problems(url, selection=PlainMp3()) == {"a.mp3": None, "d/f.mp3": None}


@everywhere
def test_a_file_is_a_source_by_itself(source):
    url = source(["a.mp3", "a.mp3.txt", "b.mp3"])
    (file,) = stream_files(f"{url}/a.mp3", selection=PlainMp3())
    assert file == FoundFile("a.mp3", f"{url}/a.mp3", 3, read_signature(f"{url}/a.mp3"))
    assert problems(f"{url}/a.mp3.txt", selection=PlainMp3()) == {}


def test_a_link_that_is_a_source_is_the_file_it_leads_to(tmp_path):
    write_files(tmp_path, ["music/a.mp3", "caf\udce9.mp3"])
    (tmp_path / "song.mp3").symlink_to("music/a.mp3")
    (file,) = stream_files(str(tmp_path / "song.mp3"))
    assert (file.path, file.url, file.problem) == ("song.mp3", str(tmp_path / "music/a.mp3"), None)
    assert problems(tmp_path / "caf\udce9.mp3") == {"caf\\udce9.mp3": "name-not-utf-8"}


@everywhere
def test_what_does_not_exist_is_not_streamed(source):
    url = source(["a.mp3"])
    with pytest.raises(FileNotFoundError):
        paths(f"{url}/missing")


def test_other_kinds_of_url_are_not_streamed():
    with pytest.raises(BadInput, match="memory://music: tags are written to local files and S3 objects"):
        paths("memory://music")


def test_keys_that_would_part_a_url_are_named(s3_url):
    for key in ("a::b.mp3", "a?versionId=b.mp3", "a?b.mp3"):
        boto3.client("s3").put_object(Bucket=s3_url.removeprefix("s3://"), Key=key, Body=b"")
    assert problems(s3_url) == {
        "a::b.mp3": "name-breaks-url",
        "a?b.mp3": None,
        "a?versionId=b.mp3": "name-breaks-url",
    }


def test_such_names_are_good_on_a_disk(tmp_path):
    write_files(tmp_path, ["a::b.mp3", "c:/d.mp3"])
    assert problems(f"file://{tmp_path}/") == {"a::b.mp3": None, "c:/d.mp3": None}
