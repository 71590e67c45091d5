import os
import shutil
from pathlib import Path

import pytest

from store.file_swap import DRAFT_PREFIX, signature_of
from store.journal import list_batches, read_batch
from store.tag_batch import WriteSettings, undo_batch, write_batch
from store.tags import audio_hash, read_genres, write_genres
from tests.formats import CODECS, encode

GENRES = ["Old-Time / Historic", "Folk"]


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> Path:
    """One short file of each format, with a genre, in two folders."""
    folder = tmp_path_factory.mktemp("originals")
    for number, (suffix, (codec, rate, container)) in enumerate(CODECS.items()):
        path = folder / f"album {number % 2}" / f"music{suffix}"
        path.parent.mkdir(exist_ok=True)
        encode(path, codec, rate, container)
        write_genres(path, ["Noise"])
        os.utime(path, ns=(10**18, 10**18 + number))
    return folder


@pytest.fixture
def music(originals, tmp_path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "music"))


@pytest.fixture
def song(music) -> Path:
    return music / "album 0" / "music.mp3"


@pytest.fixture
def journal(tmp_path) -> str:
    return str(tmp_path / "run" / "journal")


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}


def times_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files_of(folder)}


def row_of(path: Path, genres=GENRES, notes=None) -> dict:
    return {
        "track_id": path.name,
        "url": str(path),
        "signature": signature_of(path.stat()),
        "status": "change",
        "genres": list(genres),
        "notes": notes or {},
    }


def tag(rows, journal, name="00001", **settings):
    return write_batch(rows, settings=WriteSettings(**settings), journal_url=journal, name=name)


def undo(journal, to=None, name="00001", even_changed=False, dry_run=False, **settings):
    return undo_batch(
        read_batch(journal, name),
        settings=WriteSettings(**settings),
        journal_url=to or f"{journal}-undo",
        name=name,
        even_changed=even_changed,
        dry_run=dry_run,
    )


def statuses(rows) -> set[str]:
    return {row["status"] for row in rows}


def reasons(rows) -> list[str | None]:
    return [row["reason"] for row in rows]


def drafts_in(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{DRAFT_PREFIX}*"))


# Tagged, and back


def test_a_batch_is_tagged_and_undone_byte_for_byte(music, originals, journal):
    done = tag([row_of(path) for path in files_of(music)], journal)
    assert statuses(done) == {"written"}
    for row in done:
        path = Path(row["url"])
        assert read_genres(path) == GENRES
        assert audio_hash(path) == audio_hash(originals / path.relative_to(music))
        assert row["signature"] == signature_of(path.stat())
    assert times_of(music) == times_of(originals)
    assert not drafts_in(music)
    assert statuses(undo(journal)) == {"restored"}
    assert content_of(music) == content_of(originals)
    assert times_of(music) == times_of(originals)
    assert not drafts_in(music)


def test_an_undo_can_be_undone(music, journal):
    tag([row_of(path) for path in files_of(music)], journal)
    tagged = content_of(music)
    undo(journal, to=f"{journal}-1")
    assert statuses(undo(f"{journal}-1", to=f"{journal}-2")) == {"restored"}
    assert content_of(music) == tagged


def test_a_batch_that_is_run_again_finds_its_own_work(music, journal):
    rows = [row_of(path) for path in files_of(music)]
    tag(rows, journal)
    tagged = content_of(music)
    again = tag(rows, journal)
    assert statuses(again) == {"written"}
    assert [row["signature"] for row in again] == [signature_of(Path(row["url"]).stat()) for row in again]
    assert content_of(music) == tagged
    assert list_batches(journal) == ["00001"]
