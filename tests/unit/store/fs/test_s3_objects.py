"""S3 objects are read with what they bear, and put only where nobody else has put."""

from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from store.errors import BadInput, ObjectChanged
from store.fs import s3_objects as objects
from store.fs.listing import stream_files
from store.fs.s3_objects import download_object, has_version, put_if_unchanged
from store.fs.signatures import read_signature

BORNE = {
    "CacheControl": "max-age=60",
    "ContentDisposition": 'attachment; filename="a.mp3"',
    "ContentLanguage": "de",
    "ContentType": "audio/mpeg",
    "Expires": datetime(2031, 2, 3, tzinfo=UTC),
    "Metadata": {"artist": "Ann", "note": "=?UTF-8?B?w6k=?="},
    "ServerSideEncryption": "aws:kms",
    "SSEKMSKeyId": "alias/music",
    "StorageClass": "STANDARD_IA",
}


@pytest.fixture
def bucket(s3_url):
    return s3_url.removeprefix("s3://")


@pytest.fixture
def song(s3_url, bucket):
    boto3.client("s3").put_object(
        Bucket=bucket,
        Key="music/a song.mp3",
        Body=b"old" * 1000,
        Tagging="by=Ann%20%2B%20Bob%3D&year=%C3%A9",
        **BORNE,
    )
    return f"{s3_url}/music/a song.mp3"


@pytest.fixture
def draft(tmp_path):
    path = tmp_path / "draft.mp3"
    path.write_bytes(b"new" * 2000)
    return path


def ask(name: str, url: str, **more):
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return getattr(boto3.client("s3"), name)(Bucket=bucket, Key=key, **more)


def content(url: str) -> bytes:
    return ask("get_object", url)["Body"].read()


def test_an_object_is_read_with_what_it_bears(song, tmp_path):
    was = download_object(song, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"old" * 1000
    assert (was.url, was.size_bytes, was.version_id) == (song, 3000, None)
    assert {name: was.headers[name] for name in BORNE} == BORNE
    (listed,) = stream_files(song.rsplit("/", 1)[0])
    assert was.signature == listed.signature == read_signature(song)


def test_what_is_put_bears_what_the_object_bore(song, draft, tmp_path):
    was = download_object(song, tmp_path / "copy")
    now = put_if_unchanged(song, draft, was)
    there = ask("get_object", song)
    assert there["Body"].read() == b"new" * 2000
    assert {name: there[name] for name in BORNE} == BORNE
    assert ask("get_object_tagging", song)["TagSet"] == [
        {"Key": "by", "Value": "Ann + Bob="},
        {"Key": "year", "Value": "é"},
    ]
    assert now == download_object(song, tmp_path / "copy")


@pytest.mark.parametrize(
    "key", ["a//b.mp3", "/b.mp3", "a/../b.mp3", "a b+%41&c?d#e.mp3", "é/b .mp3", "b.mp3 "]
)
def test_odd_keys_are_listed_read_and_put(s3_url, bucket, draft, tmp_path, key):
    boto3.client("s3").put_object(Bucket=bucket, Key=f"music/{key}", Body=b"old")
    (file,) = stream_files(f"{s3_url}/music")
    assert (file.path, file.problem, read_signature(file.url)) == (key, None, file.signature)
    put_if_unchanged(file.url, draft, download_object(file.url, tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"old"
    there = boto3.client("s3").get_object(Bucket=bucket, Key=f"music/{key}")
    assert there["Body"].read() == b"new" * 2000
    assert len(list(stream_files(s3_url))) == 1


def test_what_another_writer_put_stays(song, draft, tmp_path):
    was = download_object(song, tmp_path / "copy")
    ask("put_object", song, Body=b"theirs")
    with pytest.raises(ObjectChanged, match="another writer changed the object meanwhile"):
        put_if_unchanged(song, draft, was)
    assert content(song) == b"theirs"


def test_what_another_writer_removed_stays_away(song, draft, tmp_path):
    was = download_object(song, tmp_path / "copy")
    ask("delete_object", song)
    with pytest.raises(FileNotFoundError):
        put_if_unchanged(song, draft, was)
    assert list(stream_files(f"s3://{song.split('/')[2]}")) == []


@pytest.mark.parametrize("lost", ["request", "response"])
def test_a_put_that_is_tried_again_is_whole_and_no_other_writer(song, draft, tmp_path, drop_s3_puts, lost):
    """If the response was lost, the client is refused by its own first request."""
    drop_s3_puts(lost, 1)
    was = download_object(song, tmp_path / "copy")
    now = put_if_unchanged(song, draft, was)
    assert now == download_object(song, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"new" * 2000


@pytest.mark.parametrize(("lost", "left"), [("request", b"old" * 1000), ("response", b"new" * 2000)])
def test_a_store_that_does_not_respond_is_an_error(
    song, draft, tmp_path, drop_s3_puts, monkeypatch, lost, left
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    was = download_object(song, tmp_path / "copy")
    drop_s3_puts(lost, 99)
    with pytest.raises(OSError, match=r"a song\.mp3: "):
        put_if_unchanged(song, draft, was)
    assert content(song) == left


def test_versions_are_named_and_can_be_read_again(song, bucket, draft, tmp_path):
    boto3.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    ask("put_object", song, Body=b"first")
    was = download_object(song, tmp_path / "copy")
    assert was.version_id
    now = put_if_unchanged(song, draft, was)
    assert now.version_id not in (None, was.version_id)
    download_object(song, tmp_path / "before", version_id=was.version_id)
    assert (tmp_path / "before").read_bytes() == b"first"
    assert has_version(song, was.version_id)
    ask("delete_object", song, VersionId=was.version_id)
    assert not has_version(song, was.version_id)


def test_what_one_put_cannot_carry_is_refused_before_it_is_read(song, draft, tmp_path, monkeypatch):
    was = download_object(song, tmp_path / "copy")
    monkeypatch.setattr(objects, "MAX_PUT_BYTES", 2_999)
    with pytest.raises(
        BadInput, match=r"a song\.mp3: 0\.0 GiB; an object of over 0 GiB cannot be put in one step"
    ):
        download_object(song, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(BadInput, match="cannot be put in one step"):
        put_if_unchanged(song, draft, was)
    assert content(song) == b"old" * 1000


def test_an_object_that_is_not_there_is_missing(s3_url, tmp_path):
    with pytest.raises(FileNotFoundError):
        download_object(f"{s3_url}/missing.mp3", tmp_path / "copy")


def test_an_object_of_many_blocks_is_put_whole(s3_url, tmp_path: Path):
    url, path = f"{s3_url}/large.wav", tmp_path / "large.wav"
    path.write_bytes(bytes(range(256)) * 40_000)
    ask("put_object", url, Body=b"x")
    put_if_unchanged(url, path, download_object(url, tmp_path / "copy"))
    download_object(url, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
