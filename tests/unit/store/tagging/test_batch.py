import errno
import hashlib
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mutagen.flac import FLAC

from store.errors import BadInput
from store.fs.signatures import signature_from_stat
from store.tagging.batch import WriteSettings, apply_batch, undo_batch
from store.tagging.swap import drafts, local_swap
from store.tagging.swap.drafts import DRAFT_PREFIX
from store.tagging.swap.journal import list_journalled_batches, read_journal
from store.tags import write as tags
from store.tags.write import read_genres, read_tags, write_genres
from tests.support.audio_formats import CODECS, encode
from tests.support.audio_hash import audio_hash
from tests.support.damaged_files import mutations, real_files
from tests.support.disk_faults import faults

HOSTILE = Path("../shared/data/hostile")
NOTES = {"GENRE_CONFIDENCE": "0.93", "GENRE_MODEL": "20261127T120000"}
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


def row_of(path: Path, genres=GENRES, custom_tags=None) -> dict:
    return {
        "track_id": path.name,
        "url": str(path),
        "signature": signature_from_stat(path.stat()),
        "status": "change",
        "genres": list(genres),
        "custom_tags": custom_tags or {},
    }


def tag(rows, journal, name="00001", **settings):
    return apply_batch(rows, settings=WriteSettings(**settings), journal_url=journal, name=name)


def undo(journal, to=None, name="00001", even_changed=False, dry_run=False, **settings):
    return undo_batch(
        read_journal(journal, name),
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
        assert row["signature"] == signature_from_stat(path.stat())
    assert times_of(music) == times_of(originals)
    assert not drafts_in(music)
    assert statuses(undo(journal)) == {"restored"}
    assert content_of(music) == content_of(originals)
    assert times_of(music) == times_of(originals)
    assert not drafts_in(music)


def test_notes_are_written_beside_genres_and_taken_back(music, originals, journal):
    tag([row_of(path, custom_tags=NOTES) for path in files_of(music)], journal)
    once = content_of(music)
    assert all(read_tags(path).custom_tags == NOTES for path in files_of(music))
    fewer = {"GENRE_CONFIDENCE": "0.50"}
    assert statuses(tag([row_of(path, ["Jazz"], fewer) for path in files_of(music)], journal, "2")) == {
        "written"
    }
    assert all(read_tags(path).custom_tags == NOTES | fewer for path in files_of(music))
    assert all(row["old_custom_tags"] == NOTES for row in read_journal(journal, "2"))
    assert statuses(undo(journal, name="2")) == {"restored"}
    assert content_of(music) == once
    assert statuses(undo(journal)) == {"restored"}
    assert content_of(music) == content_of(originals)


def test_notes_alone_leave_the_genres(music, journal):
    rows = [{**row_of(path, custom_tags=NOTES), "genres": None} for path in files_of(music)]
    assert statuses(tag(rows, journal)) == {"written"}
    for path in files_of(music):
        assert (read_genres(path), read_tags(path).custom_tags) == (["Noise"], NOTES)


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
    assert [row["signature"] for row in again] == [
        signature_from_stat(Path(row["url"]).stat()) for row in again
    ]
    assert content_of(music) == tagged
    assert list_journalled_batches(journal) == ["00001"]


def test_each_batch_has_its_journal_before_its_files_are_touched(music, originals, journal, monkeypatch):
    def check_and_replace(draft, file):
        if Path(file).is_relative_to(music):
            assert [row["url"] for row in read_journal(journal, "00001")] == [row["url"] for row in rows]
            assert Path(file).read_bytes() == (originals / Path(file).relative_to(music)).read_bytes()
        replace(draft, file)

    replace = os.replace
    rows = [row_of(path) for path in files_of(music)]
    monkeypatch.setattr(os, "replace", check_and_replace)
    assert statuses(tag(rows, journal)) == {"written"}
    assert [row["old_genres"] for row in read_journal(journal, "00001")] == [["Noise"]] * len(rows)


def test_the_disk_holds_journal_then_drafts_before_the_first_swap_and_folders_after_the_last(music, journal):
    rows = [row_of(path) for path in files_of(music)]
    Path(journal).mkdir(parents=True)
    with faults() as met:
        tag(rows, journal)
    order = [name for name in met.calls if name in ("fsync", "replace")]
    of_journal = ["fsync", "replace", "fsync"]
    assert order == [*of_journal, *["fsync"] * len(rows), *["replace"] * len(rows), "fsync", "fsync"]


def test_large_batches_are_swapped_in_groups(music, originals, journal, monkeypatch):
    monkeypatch.setattr(drafts, "MAX_GROUP_BYTES", 100_000)
    assert statuses(tag([row_of(path) for path in files_of(music)], journal)) == {"written"}
    assert len(list(Path(journal).iterdir())) > 2
    assert statuses(undo(journal)) == {"restored"}
    assert content_of(music) == content_of(originals)


# What is left alone, and why


def test_a_file_that_changed_since_is_left_alone(song, journal):
    row = row_of(song)
    os.utime(song)
    before = song.read_bytes()
    (done,) = tag([row], journal)
    assert (done["status"], done["reason"]) == ("skipped", "changed")
    assert done["signature"] == row["signature"]
    assert song.read_bytes() == before


def test_a_file_whose_genres_changed_within_their_padding_is_left_alone(song, journal):
    """Programs that restore the time of modification keep the signature then."""
    row = row_of(song) | {"old_genres": ["Noise"]}
    write_genres(song, ["Jazz"])
    assert row_of(song)["signature"] == row["signature"]
    before = song.read_bytes()
    (done,) = tag([row], journal)
    assert (done["status"], done["reason"]) == ("skipped", "changed")
    assert song.read_bytes() == before
    assert not drafts_in(song.parent)
    row = row_of(song) | {"old_genres": ["Jazz"]}
    assert statuses(tag([row], journal)) == {"written"}


def test_a_file_whose_mode_changed_since_is_tagged(song, journal):
    row = row_of(song)
    song.chmod(0o600)
    assert statuses(tag([row], journal)) == {"written"}
    assert read_genres(song) == GENRES


def test_a_file_that_was_undone_can_be_tagged_by_the_same_predictions(song, journal):
    row = row_of(song)
    tag([row], journal)
    undo(journal)
    assert statuses(tag([row], f"{journal}-again")) == {"written"}
    assert read_genres(song) == GENRES


def test_a_file_that_changes_meanwhile_is_left_alone(song, journal, monkeypatch):
    def write_and_disturb(*args):
        write_entries(*args)
        song.write_bytes(b"somebody else's")

    write_entries = local_swap.write_entries
    monkeypatch.setattr(local_swap, "write_entries", write_and_disturb)
    (done,) = tag([row_of(song)], journal)
    assert (done["status"], done["reason"]) == ("skipped", "changed")
    assert song.read_bytes() == b"somebody else's"
    assert not drafts_in(song.parent)


def test_one_bad_file_does_not_hold_up_the_others(music, song, journal, tmp_path):
    (music / "page.mp3").write_bytes(b"<html>" * 99)
    (music / "gone.mp3").write_bytes(b"x")
    shutil.copyfile(song, music / "locked.mp3")
    shutil.copyfile(song, music / "twice.mp3")
    (music / "locked.mp3").chmod(0o444)
    (music / "twice again.mp3").hardlink_to(music / "twice.mp3")
    (music / "circle.mp3").symlink_to(music / "circle.mp3")
    names = ["page.mp3", "gone.mp3", "locked.mp3", "twice.mp3", "circle.mp3"]
    rows = [row_of(music / name) if name != "circle.mp3" else row_of(song) for name in names]
    rows[-1]["url"] = str(music / "circle.mp3")
    (music / "gone.mp3").unlink()
    before = {name: (music / name).read_bytes() for name in ("page.mp3", "locked.mp3", "twice.mp3")}
    done = tag([*rows, row_of(song)], journal)
    assert reasons(done) == ["unsupported", "missing", "read-only", "hard-linked", "missing", None]
    assert [row["status"] for row in done] == ["skipped"] * 5 + ["written"]
    assert all(row["detail"] for row in done[:-1])
    assert {name: (music / name).read_bytes() for name in before} == before
    assert not drafts_in(music)


def test_a_hard_link_is_broken_if_asked_for(song, journal):
    other = song.with_name("other.mp3")
    other.hardlink_to(song)
    before = song.read_bytes()
    (done,) = tag([row_of(song)], journal, hard_links="break")
    assert done["status"] == "written"
    assert read_genres(song) == GENRES
    assert other.read_bytes() == before
    assert (song.stat().st_nlink, other.stat().st_nlink) == (1, 1)


def test_both_names_of_a_file_can_be_tagged(song, journal):
    other = song.with_name("other.mp3")
    other.hardlink_to(song)
    done = tag([row_of(song), row_of(other)], journal, hard_links="break")
    assert statuses(done) == {"written"}
    assert read_genres(song) == read_genres(other) == GENRES


def test_a_link_and_its_file_in_one_batch_are_one_file(song, journal):
    link = song.with_name("link.mp3")
    link.symlink_to(song)
    done = tag([row_of(song), row_of(link)], journal)
    assert reasons(done) == [None, "same-file"]
    assert link.is_symlink()
    assert read_genres(song) == GENRES


def test_a_folder_that_may_not_be_written_is_named(originals, journal, open_folder):
    album = Path(shutil.copytree(originals / "album 0", open_folder / "album"))
    rows = [row_of(path) for path in files_of(album)]
    for path in files_of(album):
        path.chmod(0o666)
    rows = [row_of(path) for path in files_of(album)]
    album.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(65534)  # root may write into any folder
    try:
        done = tag(rows, str(open_folder / "run"))
    finally:
        os.seteuid(os.getuid())
        album.chmod(0o755)
    assert set(reasons(done)) == {"no-permission"}
    assert all(row["detail"].startswith(f"{album}: this user may not write into the folder") for row in done)


def test_a_path_that_leaves_no_room_for_a_draft_is_left_alone(song, journal, tmp_path):
    folder = tmp_path
    while len(str(folder)) < 4_060:
        folder /= "x" * min(250, 4_060 - len(str(folder)))
    folder.mkdir(parents=True)
    shutil.copyfile(song, folder / "a.mp3")
    (done, other) = tag([row_of(folder / "a.mp3"), row_of(song)], journal)
    assert (done["reason"], done["detail"]) == (
        "unsupported",
        "the file cannot be written: File name too long",
    )
    assert other["status"] == "written"


def test_a_file_that_is_mounted_by_itself_is_left_alone(music, song, journal, monkeypatch):
    def replace_others(draft, file):
        if Path(file) == song:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        replace(draft, file)

    replace = os.replace
    monkeypatch.setattr(os, "replace", replace_others)
    done = tag([row_of(path) for path in files_of(music)], journal)
    assert [row["url"] for row in done if row["status"] == "skipped"] == [str(song)]
    assert read_genres(song) == ["Noise"]
    assert not drafts_in(music)


@pytest.fixture
def open_folder():
    """A folder into which another user may write: pytest's own are closed to all but their owner."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


# The file stays who it is


def test_owner_mode_and_attributes_stay(song, journal):
    song.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(song, 1234, 2345)
    try:
        os.setxattr(song, "user.mood", b"blue")
        attributes = {"user.mood": b"blue"}
    except OSError:
        attributes = {}  # not on this file system
    os.utime(song, ns=(10**18, 2 * 10**18))
    before = song.stat()
    tag([row_of(song)], journal)
    after = song.stat()
    for name in ("st_mode", "st_uid", "st_gid", "st_atime_ns", "st_mtime_ns"):
        assert getattr(after, name) == getattr(before, name)
    assert {name: os.getxattr(song, name) for name in os.listxattr(song)} == attributes


def test_an_attribute_that_would_be_lost_is_a_reason_to_leave_the_file_alone(song, journal, monkeypatch):
    try:
        os.setxattr(song, "user.mood", b"blue")
    except OSError:
        pytest.skip("this file system keeps no attributes")

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOTSUP, "not here")

    monkeypatch.setattr(os, "setxattr", refuse)
    (done,) = tag([row_of(song)], journal)
    assert (done["status"], done["reason"]) == ("skipped", "unsupported")
    assert "user.mood" in done["detail"]


def test_the_time_of_modification_is_now_if_asked_for(song, journal):
    (row,) = tag([row_of(song)], journal, mtime="now")
    assert song.stat().st_mtime_ns > 10**18 + 10
    assert row["signature"] == signature_from_stat(song.stat())
    assert statuses(undo(journal)) == {"restored"}
    assert song.stat().st_mtime_ns == 10**18


def test_a_file_that_says_it_already_is_not_rewritten(song, journal):
    write_genres(song, GENRES)
    inode = song.stat().st_ino
    (row,) = tag([row_of(song)], journal)
    assert (row["status"], row["reason"], row["signature"]) == (
        "kept",
        "has-genre",
        row_of(song)["signature"],
    )
    assert song.stat().st_ino == inode
    assert list_journalled_batches(journal) == []


# An earlier attempt


def test_drafts_of_an_earlier_attempt_are_swept_and_no_others(song, journal):
    rows = [row_of(song)]
    token = attempt_folder(song, journal, "00001")
    other = attempt_folder(song, journal, "00002")
    for folder in (token, other):
        folder.mkdir()
        (folder / "draft.mp3").write_bytes(b"half")
    tag(rows, journal)
    assert drafts_in(song.parent) == [other]


def test_drafts_that_nobody_touched_for_an_hour_are_swept_by_any_run(song, journal):
    old, young = (attempt_folder(song, f"{journal}-{name}", "00001") for name in ("old", "young"))
    for folder, age_s in ((old, 3_700), (young, 60)):
        folder.mkdir()
        (folder / "draft.mp3").write_bytes(b"half")
        os.utime(folder, (time.time() - age_s,) * 2)
    tag([row_of(song)], journal)
    assert drafts_in(song.parent) == [young]


def attempt_folder(song: Path, journal: str, name: str) -> Path:
    token = hashlib.blake2b(f"{journal}/{name}".encode(), digest_size=6).hexdigest()
    return song.parent / f"{DRAFT_PREFIX}{token}"


def test_folders_that_an_attempt_did_not_come_to_sync_are_synced_by_the_next(music, journal):
    rows = [row_of(path) for path in files_of(music)]
    tag(rows, journal)
    with faults() as met:
        tag(rows, journal)
    assert [name for name in met.calls if name in ("fsync", "replace")] == ["fsync"] * 2, "of two albums"


def test_drafts_of_refused_files_do_not_pile_up(music, journal, monkeypatch):
    def refuse(real, draft, edit, kind):
        assert not [path for path in files_of(music) if DRAFT_PREFIX in str(path)]
        draft.write_bytes(b"half")
        raise BadInput("no")

    monkeypatch.setattr(tags, "write_edited_copy", refuse)
    assert set(reasons(tag([row_of(path) for path in files_of(music)], journal))) == {"unsupported"}


def test_two_attempts_at_once_leave_whole_files(song, originals, journal, monkeypatch):
    """A worker that was believed dead goes on, and sweeps or is swept."""

    def write_and_be_overtaken(*args):
        write_entries(*args)
        monkeypatch.setattr(local_swap, "write_entries", write_entries)
        assert statuses(tag(rows, journal)) == {"written"}

    write_entries = local_swap.write_entries
    rows = [row_of(song)]
    monkeypatch.setattr(local_swap, "write_entries", write_and_be_overtaken)
    with pytest.raises(FileNotFoundError):
        tag(rows, journal)
    assert read_genres(song) == GENRES
    assert statuses(tag(rows, journal)) == {"written"}
    assert statuses(undo(journal)) == {"restored"}
    assert song.read_bytes() == (originals / "album 0" / song.name).read_bytes()
    assert not drafts_in(song.parent)


def test_what_another_attempt_did_meanwhile_is_done(song, journal, monkeypatch):
    def write_and_be_overtaken(*args):
        write_entries(*args)
        (draft,) = attempt_folder(song, journal, "00001").iterdir()
        (draft.parent / "of the other").write_bytes(draft.read_bytes())
        (draft.parent / "next of the other").write_bytes(b"half")
        os.replace(draft.parent / "of the other", song)

    write_entries = local_swap.write_entries
    monkeypatch.setattr(local_swap, "write_entries", write_and_be_overtaken)
    assert statuses(tag([row_of(song)], journal)) == {"written"}
    assert read_genres(song) == GENRES
    assert [path.name for path in attempt_folder(song, journal, "00001").iterdir()] == ["next of the other"]


# Undo


def test_a_dry_undo_touches_nothing(music, journal):
    tag([row_of(path) for path in files_of(music)], journal)
    before = content_of(music), times_of(music)
    assert statuses(undo(journal, dry_run=True)) == {"would-restore"}
    assert (content_of(music), times_of(music)) == before
    assert not Path(f"{journal}-undo").exists()


def test_what_was_not_tagged_or_undone_before_is_as_it_was(music, journal):
    tag([row_of(path) for path in files_of(music)], journal)
    undo(journal, to=f"{journal}-1")
    assert statuses(undo(journal, to=f"{journal}-2")) == {"as-it-was"}
    assert list_journalled_batches(f"{journal}-2") == []
    assert statuses(undo(journal, to=f"{journal}-1")) == {"restored"}, "its own work"


def test_a_file_that_changed_since_keeps_what_others_did_to_it(music, journal):
    flac = music / "album 1" / "music.flac"
    tag([row_of(path) for path in files_of(music)], journal)
    audio = FLAC(flac)
    audio["artist"] = "Ann"
    audio.save()
    before = flac.read_bytes()
    (done,) = [row for row in undo(journal, to=f"{journal}-1") if row["url"] == str(flac)]
    assert (done["status"], done["reason"]) == ("skipped", "changed")
    assert flac.read_bytes() == before
    (dry,) = [row for row in undo(journal, even_changed=True, dry_run=True) if row["url"] == str(flac)]
    assert dry["status"] == "would-restore-tags"
    (done,) = [row for row in undo(journal, to=f"{journal}-2", even_changed=True) if row["url"] == str(flac)]
    assert done["status"] == "restored-tags"
    assert FLAC(flac)["artist"] == ["Ann"]
    assert read_genres(flac) == ["Noise"]
    assert statuses(undo(f"{journal}-2", to=f"{journal}-3")) == {"restored"}
    assert flac.read_bytes() == before


def test_without_a_recipe_tags_are_put_back_one_by_one(music, originals, journal, monkeypatch):
    monkeypatch.setattr(drafts, "make_delta", lambda new, old: None)
    tag([row_of(path, custom_tags=NOTES) for path in files_of(music)], journal)
    assert statuses(undo(journal, dry_run=True)) == {"would-restore-tags"}
    assert statuses(undo(journal)) == {"restored-tags"}
    for path in files_of(music):
        assert (read_genres(path), read_tags(path).custom_tags) == (["Noise"], {})
    assert times_of(music) == times_of(originals)
    assert statuses(undo(journal)) <= {"restored-tags", "restored"}, "its own work"


def test_a_damaged_journal_restores_nothing(song, journal):
    tag([row_of(song)], journal)
    before = song.read_bytes()
    (row,) = read_journal(journal, "00001")
    done = undo_batch(
        [{**row, "delta": row["delta"][:-1] + b"?"}],
        settings=WriteSettings(),
        journal_url=f"{journal}-undo",
        name="1",
        even_changed=False,
        dry_run=False,
    )
    assert statuses(done) == {"skipped"}
    assert song.read_bytes() == before
    assert not drafts_in(song.parent)


def test_other_peoples_broken_files_are_tagged_and_undone_or_left_alone(tmp_path, journal, need):
    need(HOSTILE.is_dir(), "../shared/data/hostile is not here")
    folder = tmp_path / "hostile"
    for source in (path for path in HOSTILE.rglob("*") if path.is_file()):
        target = folder / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    before, times = content_of(folder), times_of(folder)
    done = tag([row_of(path) for path in files_of(folder)], journal)
    written = {str(Path(row["url"]).relative_to(folder)) for row in done if row["status"] == "written"}
    assert len(written) > 150
    assert all(row["detail"] and "\n" not in row["detail"] for row in done if row["status"] == "skipped")
    for name, data in content_of(folder).items():
        if name in written:
            assert read_genres(folder / name) == GENRES
        else:
            assert data == before[name]
    assert not drafts_in(folder)
    assert statuses(undo(journal)) == {"restored"}
    assert content_of(folder) == before
    assert times_of(folder) == times


def test_damaged_files_are_tagged_and_undone_or_left_alone(tmp_path, journal):
    (tmp_path / "whole").mkdir()
    (tmp_path / "damaged").mkdir()
    whole = real_files(tmp_path / "whole", seconds=0.5)
    for path in whole:
        write_genres(path, ["Noise"])
    for number, (kind, path, data) in enumerate(mutations(whole, 150, seed=3)):
        (tmp_path / "damaged" / f"{number} {kind}{path.suffix}").write_bytes(data)
    before = content_of(tmp_path / "damaged")
    done = tag([row_of(path) for path in files_of(tmp_path / "damaged")], journal)
    assert reasons(done).count("unsupported") == len(done) - reasons(done).count(None)
    assert 50 < reasons(done).count(None) < 140
    for row in done:
        path = Path(row["url"])
        if row["status"] == "written":
            assert read_genres(path) == GENRES
        else:
            assert path.read_bytes() == before[path.name]
    assert statuses(undo(journal)) == {"restored"}
    assert content_of(tmp_path / "damaged") == before
