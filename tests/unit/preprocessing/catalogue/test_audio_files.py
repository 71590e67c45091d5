import tracemalloc
from pathlib import Path

import boto3
import pytest

from preprocessing.catalogue.audio_files import find_audio, stream_audio
from preprocessing.catalogue.file_rules import FileRules
from preprocessing.catalogue.source_counts import SourceCounts
from store.errors import BadInput
from tests.support.audio_folders import write_files


def test_what_is_streamed_is_what_is_found(tmp_path):
    write_files(
        tmp_path, ["b/x.MP3", "b.flac", "b/cover.jpg", ".trash/c.mp3", "b/._x.mp3", "d.wv", "e.tta", "mp3"]
    )
    paths = [file.path for file in stream_audio(str(tmp_path))]
    assert paths == find_audio(str(tmp_path))["path"].to_pylist() == ["b.flac", "b/x.MP3", "d.wv", "e.tta"]


def test_problems_are_reported_for_files_named_like_audio_only(tmp_path):
    for name in ("lost.mp3", "lost.txt"):
        (tmp_path / name).symlink_to("nowhere")
    write_files(tmp_path, ["caf\udce9.mp3", "caf\udce9.txt"])
    found = {file.path: file.problem for file in stream_audio(str(tmp_path))}
    assert found == {"caf\\udce9.mp3": "name-not-utf-8", "lost.mp3": "broken-link"}


def test_a_link_to_a_file_that_is_not_named_like_audio_is_followed(tmp_path):
    write_files(tmp_path, ["objects/f3a", "song.mp3"])
    (tmp_path / "other.mp3").symlink_to("objects/f3a")
    (tmp_path / "same.mp3").symlink_to("song.mp3")
    assert [file.path for file in stream_audio(str(tmp_path))] == ["other.mp3", "song.mp3"]


def test_a_bucket_is_streamed_too(s3_url):
    for key in ("music/a.mp3", "music/._b.mp3", "music/c.txt"):
        boto3.client("s3").put_object(Bucket=s3_url.removeprefix("s3://"), Key=key, Body=b"")
    assert [file.url for file in stream_audio(f"{s3_url}/music")] == [f"{s3_url}/music/a.mp3"]
    with pytest.raises(BadInput, match="no such file or folder"):
        next(stream_audio(f"{s3_url}/no"))


@pytest.mark.parametrize("find", [find_audio, lambda source: list(stream_audio(source))])
def test_a_source_that_cannot_be_used_is_one_line(find, tmp_path: Path):
    write_files(tmp_path, ["music/a.txt", "music/b.txt", "music/c/d.jpg"])
    with pytest.raises(
        BadInput, match=r"music: 3 files, none of them audio; 3 not audio \(2 \.txt, 1 \.jpg\); wanted"
    ):
        find(str(tmp_path / "music"))
    with pytest.raises(BadInput, match=r"no: no such file or folder"):
        find(str(tmp_path / "no"))


def test_a_file_that_is_no_audio_is_one_line(tmp_path: Path):
    write_files(tmp_path, ["a.txt"])
    with pytest.raises(BadInput, match=r"a\.txt: this is a file; wanted a folder"):
        find_audio(str(tmp_path / "a.txt"))
    with pytest.raises(
        BadInput, match=r"a\.txt: 1 file, none of them audio; 1 not audio \(1 \.txt\); wanted \.mp3"
    ):
        list(stream_audio(str(tmp_path / "a.txt")))
    with pytest.raises(BadInput, match=r"/dev/null: this is a pipe or a device; wanted audio files"):
        list(stream_audio("/dev/null"))


JUNK_AND_MUSIC = {
    "audio": [".38 Special/x.mp3", "...And then.mp3", "a/b.m4b", "a/c.mp3"],
    "recycle-bin": ["#recycle/x.mp3", "#recycle/b/y.jpg"],
    "apple-double": ["a/._c.mp3"],
    ".jpg": ["a/cover.jpg", "a/COVER.JPG"],
    "no suffix": ["README", ".hidden"],
    "snapshots": [".snapshots/1/x.mp3"],
}


@pytest.mark.parametrize("find", [find_audio, lambda *args, **options: list(stream_audio(*args, **options))])
def test_every_file_is_counted_once_by_what_became_of_it(find, tmp_path):
    write_files(tmp_path, [name for names in JUNK_AND_MUSIC.values() for name in names])
    (tmp_path / "again").symlink_to("a")
    counts = SourceCounts()
    find(str(tmp_path), counts=counts)
    assert (counts.audio, counts.links) == (4, 1)
    assert counts.excluded == {"recycle-bin": 2, "apple-double": 1, "snapshots": 1}
    assert counts.not_audio == {".jpg": 2, "no suffix": 2}
    assert counts.total == sum(map(len, JUNK_AND_MUSIC.values())) + 1
    assert counts.line({"change": 4}) == (
        "all files of the source (13): 4 change, 4 not audio (2 .jpg, 2 no suffix), "
        "4 excluded (2 recycle-bin, 1 apple-double, 1 snapshots), 1 link to what is listed under its own name"
    )


def test_what_a_rule_leaves_out_is_taken_in_below_a_folder_that_is_left_out(tmp_path):
    write_files(tmp_path, ["a/b.mp3", "a/c.flac", "#recycle/d.flac", "e.flac"])
    counts = SourceCounts()
    rules = FileRules(exclude=["a", "none"], include=["*.flac"])
    found = [file.path for file in stream_audio(str(tmp_path), rules=rules, counts=counts)]
    assert found == ["a/c.flac", "e.flac"]
    assert counts.lines({"kept": 2}, ["a", "none"]) == [
        "all files of the source (4): 2 kept, 2 excluded (1 --exclude a, 1 recycle-bin)",
        "--exclude none: left out no file",
    ]


@pytest.mark.parametrize("find", [find_audio, lambda *args, **options: list(stream_audio(*args, **options))])
def test_what_cannot_be_used_is_named_and_the_rest_goes_on(find, open_folder, as_nobody):
    write_files(open_folder, ["a.mp3", "closed/x.mp3", "caf\udce9.mp3", "#recycle/closed/x.mp3"])
    for name in ("closed", "#recycle/closed"):
        (open_folder / name).chmod(0)
    as_nobody()
    counts = SourceCounts()
    find(str(open_folder), counts=counts)
    assert counts.lines({"kept": 1}) == [
        "all files of the source (4): 1 kept, 1 with a name that is not UTF-8, 1 not listable, "
        "1 excluded (1 recycle-bin)",
        "with a name that is not UTF-8: caf\\udce9.mp3; rename it (convmv does so for whole folders)",
        "not listable: closed/; give this user the permission to list it",
    ]


def test_counting_holds_no_more_for_more_files(tmp_path):
    def peak(folders: int) -> int:
        root = tmp_path / str(folders)
        names = (".mp3", ".jpg", ".t{:04}")
        write_files(
            root,
            [f"{f:03}/{n}{it.format(20 * f + n)}" for f in range(folders) for n in range(20) for it in names],
        )
        write_files(root, [f"#recycle/{f:03}/{n}.mp3" for f in range(folders) for n in range(20)])
        counts = SourceCounts()
        tracemalloc.start()
        try:
            assert sum(1 for _ in stream_audio(str(root), counts=counts)) == 20 * folders
            assert counts.total == 80 * folders
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # caches
    few = peak(10)
    assert peak(40) < few + 60 * 200  # the names of the folders: the entries of one folder are held
