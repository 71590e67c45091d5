"""The dry run reports, file by file, what writing then does."""

import codecs
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mutagen.id3 import COMM, ID3

from store.errors import BadInput
from store.fs.signatures import signature_from_stat
from store.tagging.batch import apply_batch
from store.tagging.swap import rehearsal
from store.tagging.swap.journal import digest_file
from store.tagging.swap.rehearsal import rehearse_writing
from store.tagging.swap.settings import WriteSettings
from store.tags.write import read_genres
from tests.support.damaged_files import mutations, real_files
from tests.support.tagged_files import id3v1, write_tagged_files

SHARED = Path("../shared/data")
GENRES = ["Old-Time / Historic", "Folk"]


def row_of(path: Path, **more) -> dict:
    signature = signature_from_stat(path.stat())
    row = {"track_id": str(path), "url": str(path), "signature": signature, "genres": GENRES}
    return row | {"old_genres": None, "custom_tags": None} | more


def compare(rows: list[dict], folder: Path, **settings) -> tuple[list[str | None], list[str | None]]:
    """Rehearse, then write; return reasons with details of both, file by file."""
    before = {row["url"]: Path(row["url"]).exists() and digest_file(Path(row["url"])) for row in rows}
    rehearsed = rehearse_writing(rows, WriteSettings(**settings))
    assert before == {row["url"]: Path(row["url"]).exists() and digest_file(Path(row["url"])) for row in rows}
    done = apply_batch(rows, settings=WriteSettings(**settings), journal_url=f"{folder}/journal", name="0")
    names = [str(row["url"]) for row in rows]
    expected = [
        f"{name}: {problem[0]}: {problem[1]}" if problem else f"{name}: change"
        for name, problem in zip(names, rehearsed, strict=True)
    ]
    found = [
        f"{row['url']}: change"
        if row["status"] == "written"
        else f"{row['url']}: {row['reason']}: {row['detail']}"
        for row in done
    ]
    return expected, found


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def test_of_every_format_and_of_damaged_files_the_lines_are_equal(tmp_path):
    music = tmp_path / "music"
    (music / "whole").mkdir(parents=True)
    write_tagged_files(music / "whole")
    for number, (kind, path, data) in enumerate(mutations(real_files(music, seconds=0.5), 120, seed=5)):
        (music / f"{number} {kind}{path.suffix}").write_bytes(data)
    expected, found = compare([row_of(path) for path in files_of(music)], tmp_path)
    assert expected == found
    assert sum(line.endswith("change") for line in found) > 50
    assert sum(not line.endswith("change") for line in found) > 20


@pytest.mark.parametrize("kind", ["hostile", "field"])
def test_of_other_peoples_files_the_lines_are_equal(tmp_path, need, kind):
    need((SHARED / kind).is_dir(), f"../shared/data/{kind} is not here")
    for source in files_of(SHARED / kind):
        target = tmp_path / "music" / source.relative_to(SHARED / kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    expected, found = compare([row_of(path) for path in files_of(tmp_path / "music")], tmp_path)
    assert expected == found
    assert sum(line.endswith("change") for line in found) > len(found) / 2


@pytest.fixture
def song(originals, tmp_path) -> Path:
    return Path(shutil.copy(originals / "v23.mp3", tmp_path / "song.mp3"))


def test_what_stands_in_the_way_outside_of_a_file_is_found(song, tmp_path):
    for name in ("locked", "twice", "gone", "edited", "odd"):
        shutil.copyfile(song, tmp_path / f"{name}.mp3")
    (tmp_path / "twice again.mp3").hardlink_to(tmp_path / "twice.mp3")
    (tmp_path / "link.mp3").symlink_to(song)
    names = ["song", "locked", "twice", "gone", "edited", "link"]
    rows = [row_of(tmp_path / f"{name}.mp3") for name in names]
    rows.append(row_of(tmp_path / "odd.mp3", genres=["\x1b[31mBlues"]))
    rows.append(row_of(tmp_path / "odd.mp3", old_genres=["Something else"]))
    (tmp_path / "locked.mp3").chmod(0o444)
    (tmp_path / "gone.mp3").unlink()
    (tmp_path / "edited.mp3").write_bytes(song.read_bytes() + b"x")
    expected, found = compare(rows, tmp_path)
    assert expected == found
    reasons = [line.split(": ")[1] for line in found]
    assert reasons[:6] == ["change", "read-only", "hard-linked", "missing", "changed", "same-file"]
    assert reasons[6:] == ["unsupported", "same-file"]
    (expected, found) = compare([row_of(tmp_path / "twice.mp3")], tmp_path, hard_links="break")
    assert expected == found == [f"{tmp_path / 'twice.mp3'}: change"]


@pytest.fixture
def foreign_folder(song):
    """A folder of another user's files, into which everybody may write, and this process as a third user."""
    if os.getuid() != 0:
        pytest.skip("only root can make files of other users")
    with TemporaryDirectory() as folder:
        for name in ("mine", "theirs", "their group's"):
            shutil.copyfile(song, Path(folder, f"{name}.mp3"))
            Path(folder, f"{name}.mp3").chmod(0o666)
        os.chown(Path(folder, "mine.mp3"), 65534, 0)
        os.chown(Path(folder, "theirs.mp3"), 4321, 0)
        os.chown(Path(folder, "their group's.mp3"), 65534, 4321)
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2777, 0o555])
def test_owners_and_folders_are_found(foreign_folder, mode):
    rows = [row_of(path) for path in files_of(foreign_folder)]
    foreign_folder.chmod(mode)
    (foreign_folder.parent / f"{foreign_folder.name}-run").mkdir()
    run = foreign_folder.parent / f"{foreign_folder.name}-run"
    run.chmod(0o777)
    codecs.lookup("ascii")  # a module, which that user may not be able to read
    os.seteuid(65534)
    try:
        expected, found = compare(rows, run)
    finally:
        os.seteuid(0)
        shutil.rmtree(run)
    assert expected == found
    assert sum(not line.endswith(": change") for line in found) == (3 if mode == 0o555 else 2)


def test_a_path_without_room_for_a_draft_and_a_mounted_file_are_found(song, tmp_path, monkeypatch):
    folder = tmp_path
    while len(str(folder)) < 4_060:
        folder /= "x" * min(250, 4_060 - len(str(folder)))
    folder.mkdir(parents=True)
    shutil.copyfile(song, folder / "a.mp3")
    expected, found = compare([row_of(folder / "a.mp3")], tmp_path)
    assert expected == found
    assert "File name too long" in found[0]
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 /mnt1 {str(song).replace('s', chr(92) + '163')} rw - ext3 /dev/root rw\n")
    monkeypatch.setattr(rehearsal, "MOUNTS", mounts)
    ((reason, detail),) = rehearse_writing([row_of(song)], WriteSettings())
    assert (reason, detail) == ("unsupported", f"the file cannot be written: {os.strerror(errno.EBUSY)}")


def test_of_a_long_mp3_only_the_tags_are_edited(song, tmp_path, monkeypatch):
    song.write_bytes(song.read_bytes() + bytes(3 << 20) + id3v1(b"Before", b"", 7))
    sizes = []
    write = rehearsal.write_tagged_copy

    def write_and_note(source, draft, edit):
        sizes.append(source.stat().st_size)
        return write(source, draft, edit)

    monkeypatch.setattr(rehearsal, "write_tagged_copy", write_and_note)
    expected, found = compare([row_of(song, old_genres=read_genres(song))], tmp_path)
    assert expected == found == [f"{song}: change"]
    assert max(sizes) < 1 << 18
    tag = ID3(song)
    tag.add(COMM(encoding=0, lang="eng", desc="", text="x"))
    tag.save(song)
    damaged = song.read_bytes().replace(b"COMM", b"\0OMM", 1)
    song.write_bytes(damaged)
    expected, found = compare([row_of(song)], tmp_path / "again")
    assert expected == found


def test_objects_are_not_examined():
    row = {"track_id": "a.mp3", "url": "s3://bucket/a.mp3", "signature": "1-a", "genres": GENRES}
    assert rehearse_writing([row], WriteSettings()) == [None]
    with pytest.raises(BadInput):
        read_genres("/dev/null")
