from pathlib import Path

import boto3
import pytest

from preprocessing.catalogue.audio_files import find_audio, stream_audio
from store.errors import BadInput
from tests.support.audio_folders import write_files


def test_what_is_streamed_is_what_is_found(tmp_path):
    write_files(
        tmp_path, ["b/x.MP3", "b.flac", "b/cover.jpg", ".trash/c.mp3", "b/._x.mp3", "d.wv", "e.tta", "mp3"]
    )
    paths = [file.path for file in stream_audio(str(tmp_path))]
    assert paths == find_audio(str(tmp_path))["path"].to_pylist() == ["b.flac", "b/x.MP3", "d.wv", "e.tta"]


def test_problems_are_told_of_files_named_like_audio_only(tmp_path):
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
    for key in ("music/a.mp3", "music/.b.mp3", "music/c.txt"):
        boto3.client("s3").put_object(Bucket=s3_url.removeprefix("s3://"), Key=key, Body=b"")
    assert [file.url for file in stream_audio(f"{s3_url}/music")] == [f"{s3_url}/music/a.mp3"]
    with pytest.raises(BadInput, match="no such folder"):
        next(stream_audio(f"{s3_url}/no"))


@pytest.mark.parametrize("find", [find_audio, lambda source: list(stream_audio(source))])
def test_a_source_that_cannot_be_used_is_one_line(find, tmp_path: Path):
    write_files(tmp_path, ["music/a.txt", "music/b.txt", "music/c/d.jpg"])
    with pytest.raises(BadInput, match=r"music: 3 files, none of them audio; wanted \.mp3 "):
        find(str(tmp_path / "music"))
    with pytest.raises(BadInput, match=r"no: no such folder"):
        find(str(tmp_path / "no"))
    with pytest.raises(BadInput, match=r"a\.txt: this is a file"):
        find(str(tmp_path / "music/a.txt"))
