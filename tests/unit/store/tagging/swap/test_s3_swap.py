"""Batches are tagged and undone alike on a disk and in a bucket; and what only a bucket can do wrong."""

from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from store.fs.listing import stream_files
from store.tagging.batch import WriteSettings, apply_batch, undo_batch
from store.tagging.swap import drafts, s3_swap
from store.tagging.swap.changes import FileSkipped
from store.tagging.swap.journal import list_journalled_batches, read_journal
from store.tags.write import read_genres, write_genres
from tests.support.audio_formats import CODECS, encode
from tests.support.audio_hash import audio_hash

GENRES = ["Old-Time / Historic", "Folk"]


@dataclass(frozen=True)
class Place:
    """A folder or a bucket with one short file of each format."""

    url: str

    def put(self, name: str, data: bytes, **headers) -> None:
        if not self.url.startswith("s3://"):
            Path(self.url).mkdir(exist_ok=True)
            Path(self.url, name).write_bytes(data)
            return
        boto3.client("s3").put_object(**self.key(name), Body=data, **headers)

    def content(self) -> dict[str, bytes]:
        return {file.path: self.read(file.path) for file in stream_files(self.url)}

    def read(self, name: str) -> bytes:
        if not self.url.startswith("s3://"):
            return Path(self.url, name).read_bytes()
        data: bytes = boto3.client("s3").get_object(**self.key(name))["Body"].read()
        return data

    def remove(self, name: str) -> None:
        if self.url.startswith("s3://"):
            boto3.client("s3").delete_object(**self.key(name))
        else:
            Path(self.url, name).unlink()

    def key(self, name: str) -> dict[str, str]:
        bucket, _, folder = self.url.removeprefix("s3://").partition("/")
        return {"Bucket": bucket, "Key": f"{folder}/{name}"}

    def rows(self) -> list[dict]:
        return [
            {
                "track_id": file.path,
                "url": file.url,
                "signature": file.signature,
                "status": "change",
                "genres": GENRES,
                "custom_tags": {},
            }
            for file in stream_files(self.url)
        ]


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    for suffix, (codec, rate, container) in CODECS.items():
        encode(folder / f"music{suffix}", codec, rate, container, seconds=0.2)
        write_genres(folder / f"music{suffix}", ["Noise"])
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def place(request, tmp_path, originals) -> Place:
    is_disk = getattr(request, "param", "s3") == "disk"
    place = Place(str(tmp_path / "music") if is_disk else f"{request.getfixturevalue('s3_url')}/music")
    for name, data in originals.items():
        place.put(name, data)
    return place


@pytest.fixture
def journal(tmp_path) -> str:
    return str(tmp_path / "run/journal")


everywhere = pytest.mark.parametrize("place", ["disk", "s3"], indirect=True)


def tag(rows, journal):
    return apply_batch(rows, settings=WriteSettings(), journal_url=journal, name="1")


def undo(journal, to=None, even_changed=False, dry_run=False):
    return undo_batch(
        read_journal(journal, "1"),
        settings=WriteSettings(),
        journal_url=to or f"{journal}-undo",
        name="1",
        even_changed=even_changed,
        dry_run=dry_run,
    )


def statuses(rows) -> set[str]:
    return {row["status"] for row in rows}


def reason_of(rows, name: str) -> tuple[str, str | None]:
    (row,) = [row for row in rows if row["track_id"] == name]
    return row["status"], row["reason"]


@everywhere
def test_a_batch_is_tagged_and_undone_byte_for_byte(place, originals, journal, tmp_path):
    done = tag(place.rows(), journal)
    assert statuses(done) == {"written"}
    assert [row["signature"] for row in done] == [row["signature"] for row in place.rows()]
    for name, data in place.content().items():
        for path, content in ((tmp_path / "old", originals[name]), (tmp_path / "new", data)):
            path.write_bytes(content)
        assert read_genres(tmp_path / "new") == GENRES
        assert audio_hash(tmp_path / "new") == audio_hash(tmp_path / "old")
    assert statuses(undo(journal, dry_run=True)) == {"would-restore"}
    assert statuses(undo(journal)) == {"restored"}
    assert place.content() == originals


@everywhere
def test_an_undo_can_be_undone(place, journal):
    tag(place.rows(), journal)
    tagged = place.content()
    undo(journal, to=f"{journal}-1")
    assert statuses(undo(f"{journal}-1", to=f"{journal}-2")) == {"restored"}
    assert place.content() == tagged
    assert statuses(undo(f"{journal}-1", to=f"{journal}-2")) == {"restored"}, "its own work"


@everywhere
def test_a_batch_that_is_run_again_finds_its_own_work(place, journal):
    rows = place.rows()
    tag(rows, journal)
    tagged, now = place.content(), place.rows()
    again = tag(rows, journal)
    assert statuses(again) == {"written"}
    assert [row["signature"] for row in again] == [row["signature"] for row in now]
    assert place.content() == tagged


@everywhere
def test_what_cannot_be_tagged_is_named_and_does_not_hold_up_the_others(place, originals, journal):
    place.put("gone.mp3", b"x")
    place.put("page.mp3", b"<html>" * 99)
    rows = place.rows()
    place.put("music.flac", b"somebody else's")
    place.remove("gone.mp3")
    again = next(row for row in rows if row["track_id"] == "music.wav")
    done = tag([*rows, {**again, "track_id": "again.wav"}], journal)
    named = {
        "gone.mp3": "missing",
        "page.mp3": "unsupported",
        "music.flac": "changed",
        "again.wav": "same-file",
    }
    for name, reason in named.items():
        assert reason_of(done, name) == ("skipped", reason)
    assert statuses(row for row in done if row["track_id"] not in named) == {"written"}
    assert place.read("music.flac") == b"somebody else's"
    assert place.read("page.mp3") == b"<html>" * 99
    assert {row["track_id"] for row in read_journal(journal, "1")} == set(originals) - {"music.flac"}


@everywhere
def test_a_file_that_changed_since_is_not_undone_unless_forced(place, originals, journal, tmp_path):
    tag(place.rows(), journal)
    (tmp_path / "music.flac").write_bytes(place.read("music.flac"))
    write_genres(tmp_path / "music.flac", ["Jazz"])
    place.put("music.flac", (tmp_path / "music.flac").read_bytes())
    done = undo(journal)
    assert reason_of(done, "music.flac") == ("skipped", "changed")
    assert place.content() == {**originals, "music.flac": (tmp_path / "music.flac").read_bytes()}
    done = undo(journal, to=f"{journal}-even-changed", even_changed=True)
    assert reason_of(done, "music.flac") == ("restored-tags", None)
    assert place.content().keys() == originals.keys()
    (tmp_path / "music.flac").write_bytes(place.read("music.flac"))
    assert read_genres(tmp_path / "music.flac") == ["Noise"]


@everywhere
def test_what_says_it_already_is_not_written_again(place, journal):
    rows = place.rows()
    done = tag([{**row, "genres": ["Noise"]} for row in rows], journal)
    assert {reason_of(done, row["track_id"]) for row in done} == {("kept", "has-genre")}
    assert [row["signature"] for row in done] == [row["signature"] for row in rows]
    assert list_journalled_batches(journal) == []


def test_files_and_objects_in_one_batch_come_back_in_their_order(place, originals, journal, tmp_path):
    disk = Place(str(tmp_path / "disk"))
    for name, data in originals.items():
        disk.put(name, data)
    rows = [row for pair in zip(place.rows(), disk.rows(), strict=True) for row in pair]
    disk.remove("music.aac")
    place.remove("music.wma")
    done = tag(rows, journal)
    assert [row["url"] for row in done] == [row["url"] for row in rows]
    missing = [f"{disk.url}/music.aac", f"{place.url}/music.wma"]
    assert [row["url"] for row in done if row["status"] != "written"] == missing
    undone = undo(journal)
    assert {row["url"] for row in undone} == {row["url"] for row in rows} - set(missing)
    assert statuses(undone) == {"restored"}
    assert {**place.content(), **disk.content()} == originals


# What only buckets have


def test_what_an_object_bears_stays(place, journal):
    borne = {"ContentType": "audio/x-flac", "Metadata": {"artist": "Ann"}, "CacheControl": "no-cache"}
    place.put("music.flac", place.read("music.flac"), Tagging="by=Ann", **borne)
    tag(place.rows(), journal)
    undo(journal)
    s3, key = boto3.client("s3"), place.key("music.flac")
    there = s3.head_object(**key)
    assert {name: there[name] for name in borne} == borne
    assert s3.get_object_tagging(**key)["TagSet"] == [{"Key": "by", "Value": "Ann"}]


def test_another_writer_between_journal_and_put_is_left_alone(place, journal, monkeypatch):
    def write_and_disturb(*args):
        write_entries(*args)
        place.put("music.flac", b"somebody else's")
        place.remove("music.mp3")

    write_entries = s3_swap.write_entries
    rows = place.rows()
    monkeypatch.setattr(s3_swap, "write_entries", write_and_disturb)
    done = tag(rows, journal)
    assert reason_of(done, "music.flac") == ("skipped", "changed")
    assert reason_of(done, "music.mp3") == ("skipped", "missing")
    assert statuses(done) == {"written", "skipped"}
    assert place.read("music.flac") == b"somebody else's"
    with pytest.raises(ClientError, match="NoSuchKey"):
        place.read("music.mp3")


def test_the_journal_is_there_before_any_object_is_touched(place, originals, journal, monkeypatch):
    def put(url, path, was):
        assert {row["url"] for row in read_journal(journal, "1")} == {row["url"] for row in rows}
        assert place.read(url.rsplit("/", 1)[1]) == originals[url.rsplit("/", 1)[1]]
        return put_if_unchanged(url, path, was)

    put_if_unchanged = s3_swap.put_if_unchanged
    rows = place.rows()
    monkeypatch.setattr(s3_swap, "put_if_unchanged", put)
    assert statuses(tag(rows, journal)) == {"written"}


@pytest.mark.parametrize("lost", ["request", "response"])
def test_a_batch_that_a_store_failed_in_is_completed(
    place, originals, journal, drop_s3_puts, monkeypatch, lost
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    rows = place.rows()
    drop_s3_puts(lost, 12)
    with pytest.raises(OSError, match="s3://"):
        tag(rows, journal)
    assert {row["url"] for row in read_journal(journal, "1")} == {row["url"] for row in rows}
    drop_s3_puts(lost, 0)
    assert statuses(tag(rows, journal)) == {"written"}
    assert statuses(undo(journal)) == {"restored"}
    assert place.content() == originals


@pytest.fixture
def versioned(place) -> Place:
    boto3.client("s3").put_bucket_versioning(
        Bucket=place.key("")["Bucket"], VersioningConfiguration={"Status": "Enabled"}
    )
    for name, data in place.content().items():
        place.put(name, data)
    return place


def test_the_journal_names_the_version_that_was(versioned, originals, journal):
    tag(versioned.rows(), journal)
    for row in read_journal(journal, "1"):
        old = boto3.client("s3").get_object(**versioned.key(row["track_id"]), VersionId=row["version"])
        assert old["Body"].read() == originals[row["track_id"]]


def test_without_a_recipe_the_old_version_is_put_back(versioned, originals, journal, monkeypatch):
    monkeypatch.setattr(drafts, "make_delta", lambda new, old: None)
    tag(versioned.rows(), journal)
    (gone,) = [row for row in read_journal(journal, "1") if row["track_id"] == "music.mp3"]
    boto3.client("s3").delete_object(**versioned.key("music.mp3"), VersionId=gone["version"])
    done = undo(journal)
    assert reason_of(done, "music.mp3") == ("restored-tags", None)
    assert statuses(row for row in done if row["track_id"] != "music.mp3") == {"restored"}
    now = versioned.content()
    assert {**now, "music.mp3": b""} == {**originals, "music.mp3": b""}


def test_only_the_drafts_of_one_group_lie_here_at_a_time(place, originals, journal, tmp_path, monkeypatch):
    def look_and_write(url, name, entries):
        assert len([path for path in here.rglob("*") if path.is_file()]) == len(entries)
        groups.append(len(entries))
        return write_entries(url, name, entries)

    here, groups, write_entries = tmp_path / "here", [], s3_swap.write_entries
    here.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(here))
    monkeypatch.setattr(s3_swap, "write_entries", look_and_write)
    monkeypatch.setattr(drafts, "MAX_GROUP_BYTES", 20_000)
    monkeypatch.setattr(s3_swap, "CONCURRENT_REQUESTS", 1)
    assert statuses(tag(place.rows(), journal)) == {"written"}
    assert len(groups) > 2
    assert sum(groups) == len(originals)
    assert list(here.iterdir()) == []
    assert statuses(undo(journal)) == {"restored"}
    assert place.content() == originals
    assert list(here.iterdir()) == []


def test_expired_credentials_are_not_taken_for_objects_that_may_not_be_read(place, journal):
    error = PermissionError("expired")
    error.__cause__ = ClientError({"Error": {"Code": "ExpiredToken"}}, "GetObject")
    with pytest.raises(OSError, match="s3://a: expired"), drafts.skip_if_unusable("s3://a"):
        raise error
    error.__cause__ = ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")
    with pytest.raises(FileSkipped, match="expired"), drafts.skip_if_unusable("s3://a"):
        raise error
