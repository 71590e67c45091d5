"""A signature changes with size or time of modification, and with nothing else."""

import os

import boto3
import pytest

from store.errors import BadInput
from store.fs.listing import list_files
from store.fs.signatures import read_signature, signature_from_stat


@pytest.fixture
def song(tmp_path):
    song = tmp_path / "a.mp3"
    song.write_bytes(b"abc")
    os.utime(song, ns=(0, 10**18))
    return song


def test_the_signature_of_a_local_file_is_its_size_and_time_of_modification(song):
    assert read_signature(str(song)) == read_signature(f"file://{song}") == f"3-{10**18}"
    assert signature_from_stat(song.stat()) == f"3-{10**18}"


def test_a_change_of_status_alone_keeps_the_signature(song):
    before, status = read_signature(str(song)), song.stat()
    song.chmod(0o600)
    os.link(song, song.with_name("b.mp3"))
    os.utime(song, ns=(10**17, 10**18))
    assert song.stat().st_ctime_ns > status.st_ctime_ns
    assert read_signature(str(song)) == before
    song.with_name("c.mp3").write_bytes(b"abc")
    os.utime(song.with_name("c.mp3"), ns=(0, 10**18))
    os.replace(song.with_name("c.mp3"), song)  # as an undo puts it back
    assert read_signature(str(song)) == before


def test_another_time_of_modification_or_size_is_another_signature(song):
    before = read_signature(str(song))
    os.utime(song, ns=(0, 10**18 + 1))
    touched = read_signature(str(song))
    song.write_bytes(b"abcd")
    os.utime(song, ns=(0, 10**18))
    assert len({before, touched, read_signature(str(song))}) == 3


def test_the_signature_of_an_object_is_its_size_and_etag(s3_url):
    s3, key = boto3.client("s3"), {"Bucket": s3_url.removeprefix("s3://"), "Key": "a?b.mp3"}
    etag = s3.put_object(**key, Body=b"abc")["ETag"].strip('"')
    assert read_signature(f"{s3_url}/a?b.mp3") == f"3-{etag}"
    assert list_files(s3_url)["signature"].to_pylist() == [f"3-{etag}"]
    s3.put_object(**key, Body=b"abd")
    assert read_signature(f"{s3_url}/a?b.mp3") != f"3-{etag}"


def test_a_file_that_is_gone_has_no_signature(tmp_path, s3_url):
    for url in (str(tmp_path / "b.mp3"), f"{s3_url}/b.mp3"):
        with pytest.raises(FileNotFoundError):
            read_signature(url)


def test_other_kinds_of_url_have_no_signature():
    with pytest.raises(BadInput, match=r"http://host/a\.mp3: tags are written to local files and S3 objects"):
        read_signature("http://host/a.mp3")
