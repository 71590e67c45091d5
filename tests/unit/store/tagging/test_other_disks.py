"""Tagging and undoing on shares, on disks without modes, among files of others, on full and on layered disks."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from flows.checks import check_apart
from store.errors import BadInput
from store.fs.disk_errors import describe_os_error
from store.fs.files import put_if_absent, read_bytes, write_atomic
from store.fs.metadata import copy_metadata
from store.fs.signatures import signature_from_stat
from store.tagging.batch import WriteSettings, apply_batch, undo_batch
from store.tagging.predictions import PREDICTIONS_SCHEMA, table_rows
from store.tagging.run import TaggingRun
from store.tagging.swap.changes import TagRequest
from store.tagging.swap.journal import read_journal
from store.tagging.swap.local_swap import dry_run_files
from store.tagging.tasks import write_parts
from store.tags.write import read_genres
from tests.support.other_disks import failing_once, mounted, share_semantics
from tests.support.tagging_scenario import GENRES, request_row, tag, undo

SONG = Path("tests/data/demo_music/fma_small/200/200001.mp3").absolute()
MEMORY = "/dev/shm"
NOBODY = 65534


@pytest.fixture
def music(open_folder):
    """Three songs in a folder into which every user may look."""
    folder = open_folder / "music"
    folder.mkdir()
    for name in ("a.mp3", "b.mp3", "c.mp3"):
        shutil.copyfile(SONG, folder / name)
        os.utime(folder / name, ns=(10**18, 10**18))
    return folder


def write(music: Path, run: Path, **settings) -> dict[str, dict]:
    rows = [request_row(path) for path in sorted(music.glob("*.mp3"))]
    done = apply_batch(rows, settings=WriteSettings(**settings), journal_url=f"{run}/journal", name="0")
    return {row["track_id"]: row for row in done}


def planned(music: Path, **settings) -> dict[str, str | None]:
    paths = sorted(music.glob("*.mp3"))
    requests = [TagRequest(path.name, str(path), request_row(path)) for path in paths]
    results = dry_run_files(requests, settings=WriteSettings(**settings), own_work={})
    return {path.name: result.reason for path, result in zip(paths, results, strict=True)}


def copy(rows: list[dict], folder: Path) -> list[dict]:
    """Copy files below folder/copies; return their rows."""
    run = TaggingRun(f"{folder}/run")
    plan = [row | {"status": "change"} for row in rows]
    run.write_part("plan", "0", pa.Table.from_pylist(plan, schema=PREDICTIONS_SCHEMA))
    write_parts(["0"], run=run, settings=WriteSettings(), copy_to=f"{folder}/copies", inference_url=None)
    return table_rows(run.read_part("done", "0"))


# Shares and disks without owners, modes, links


def test_on_a_share_files_are_tagged_and_undone(music, open_folder):
    old = {path.name: path.read_bytes() for path in music.iterdir()}
    with share_semantics():
        assert {row["status"] for row in write(music, open_folder).values()} == {"written"}
        assert read_genres(music / "a.mp3") == GENRES
        assert undo(str(open_folder)) == {"restored"}
    assert {path.name: path.read_bytes() for path in music.iterdir()} == old


def test_what_another_program_holds_open_on_a_share_is_named(music, open_folder):
    with (music / "b.mp3").open("rb"), share_semantics():
        done = write(music, open_folder)
    assert {name: row["status"] for name, row in done.items()} == {
        "a.mp3": "written",
        "b.mp3": "skipped",
        "c.mp3": "written",
    }
    assert "another program may hold it open" in done["b.mp3"]["detail"]
    assert (music / "b.mp3").read_bytes() == SONG.read_bytes()
    assert len(list(music.iterdir())) == 3


def test_whole_files_are_written_and_created_once_on_a_share(tmp_path):
    url = str(tmp_path / "a" / "b.json")
    with share_semantics():
        put_if_absent(url, b"first")
        with pytest.raises(FileExistsError, match=r"b\.json"):
            put_if_absent(url, b"second")
        assert read_bytes(url) == b"first"
        write_atomic(url, b"third")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    assert read_bytes(url) == b"third"


def test_a_name_that_the_disk_of_the_copies_cannot_hold_costs_that_file_only(music, open_folder, monkeypatch):
    def mkdir(path, *args, **more):
        if "?" in os.fspath(path):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return make(path, *args, **more)

    make = os.mkdir
    monkeypatch.setattr(os, "mkdir", mkdir)
    rows = [{**request_row(music / "a.mp3"), "track_id": name} for name in ("What?/a.mp3", "b/a.mp3")]
    results = copy(rows, open_folder)
    assert [row["status"] for row in results] == ["skipped", "copied"]
    assert "Invalid argument" in results[0]["detail"]


def test_copies_whose_names_differ_in_case_only_do_not_overwrite_each_other(music, open_folder):
    shutil.copyfile(SONG.with_name("200002.mp3"), music / "other.mp3")
    copies = open_folder / "copies"
    (copies / "LIVE").mkdir(parents=True)
    (copies / "live").symlink_to("LIVE")  # as a disk that takes both names for one
    rows = [
        {**request_row(music / name), "track_id": copied}
        for name, copied in (("a.mp3", "LIVE/1.mp3"), ("other.mp3", "live/1.mp3"))
    ]
    first, second = copy(rows, open_folder)
    assert (first["status"], second["status"]) == ("copied", "skipped")
    assert "another file exists already" in second["detail"]


def test_a_copy_on_a_disk_without_modes_is_made_without_them(tmp_path):
    (tmp_path / "copy").write_bytes(b"")
    song = shutil.copyfile(SONG, tmp_path / "song.mp3")
    song.chmod(0o640)
    os.utime(song, ns=(10**18, 10**18))
    with share_semantics():
        copy_metadata(song, tmp_path / "copy", song.stat(), owner="ignore")
    assert (tmp_path / "copy").stat().st_mtime_ns == 10**18


def test_the_response_to_a_link_that_was_made_may_be_lost(tmp_path, monkeypatch):
    def link(source, target):
        made(source, target)
        raise FileExistsError(errno.EEXIST, "sent twice by NFS", str(target))

    made = os.link
    monkeypatch.setattr(os, "link", link)
    put_if_absent(str(tmp_path / "once"), b"ours")
    assert (tmp_path / "once").read_bytes() == b"ours"


@pytest.mark.parametrize("call", ["replace", "lstat", "scandir"])
def test_a_file_that_another_host_replaced_is_looked_up_again(call, music, open_folder):
    from store.fs.listing import stream_files

    with failing_once(call, errno.ESTALE) as calls:
        assert len(list(stream_files(str(music)))) == 3
        assert {row["status"] for row in write(music, open_folder).values()} == {"written"}
    assert len(calls) > 1


# Clocks


@pytest.mark.parametrize("mtime_ns", [4 * 10**18, -(10**18), 10**19], ids=["2096", "1938", "2286"])
@pytest.mark.parametrize("mtime", ["keep", "now"])
def test_a_file_of_another_century_is_tagged_and_undone(music, open_folder, mtime_ns, mtime):
    (music / "b.mp3").unlink()
    os.utime(music / "a.mp3", ns=(mtime_ns, mtime_ns))
    stored_ns = (music / "a.mp3").stat().st_mtime_ns  # the disk may not go so far
    done = write(music, open_folder, mtime=mtime)
    assert {row["status"] for row in done.values()} == {"written"}
    assert done["a.mp3"]["signature"] == signature_from_stat((music / "a.mp3").stat())
    assert undo(str(open_folder)) == {"restored"}
    assert (music / "a.mp3").read_bytes() == SONG.read_bytes()
    if mtime == "keep" or stored_ns < 1 << 63:
        assert (music / "a.mp3").stat().st_mtime_ns == stored_ns


def test_a_server_whose_clock_is_behind_makes_no_file_look_changed(music, open_folder, monkeypatch):
    """What is written there gets times of the past, earlier than those of the files beside it."""

    def stat_behind(path, *args, **more):
        found = stat(path, *args, **more)
        if ".spectrogram-one-" in str(path) and path.suffix == ".mp3":
            os.utime(path, ns=(10**17, 10**17))
            found = stat(path, *args, **more)
        return found

    stat = Path.stat
    monkeypatch.setattr(Path, "stat", stat_behind)
    done = write(music, open_folder, mtime="now")
    monkeypatch.undo()
    assert {row["status"] for row in done.values()} == {"written"}
    assert (music / "a.mp3").stat().st_mtime_ns == 10**17
    again = [row | {"genres": ["Jazz"], "old_genres": row["genres"]} for row in done.values()]
    assert tag(again, str(open_folder / "again")) == {"written"}
    assert undo(str(open_folder / "again")) == undo(str(open_folder)) == {"restored"}
    assert (music / "a.mp3").stat().st_mtime_ns == 10**18


# Files of others


@pytest.fixture
def files_of_others(music, as_nobody):
    """Files that another user owns and everybody may write, in a folder into which everybody may write."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another owner")
    for path in music.iterdir():
        os.chown(path, 1234, 2345)
        path.chmod(0o666)
    music.chmod(0o777)
    as_nobody()
    return music


def test_files_whose_owner_cannot_be_kept_are_left_alone_and_the_dry_run_reports_it(
    files_of_others, open_folder
):
    assert set(planned(files_of_others).values()) == {"other-owner"}
    done = write(files_of_others, open_folder / "music")
    assert {(row["status"], row["reason"]) for row in done.values()} == {("skipped", "other-owner")}
    assert done["a.mp3"]["detail"].startswith("it belongs to 1234:2345, ")
    assert "--owner change" in done["a.mp3"]["detail"]


def test_files_change_hands_if_that_is_asked_for_and_each_is_reported(files_of_others):
    before = (files_of_others / "a.mp3").read_bytes()
    assert set(planned(files_of_others, owner="change").values()) == {None}
    done = write(files_of_others, files_of_others / "run", owner="change")
    assert {(row["status"], row["reason"]) for row in done.values()} == {("written", "new-owner")}
    assert done["a.mp3"]["detail"] == "it belonged to 1234:2345 and now belongs to this user"
    status = (files_of_others / "a.mp3").stat()
    assert (status.st_uid, status.st_mode & 0o777, status.st_mtime_ns) == (NOBODY, 0o666, 10**18)
    journal = f"{files_of_others}/run/journal"
    undone = undo_batch(
        read_journal(journal, "0"),
        settings=WriteSettings(),
        journal_url=f"{files_of_others}/run/undo",
        name="0",
        even_changed=False,
        dry_run=False,
    )
    assert {(row["status"], row["reason"]) for row in undone} == {("restored", "new-owner")}
    assert undone[0]["detail"] == "it belonged to 1234:2345 and now belongs to this user"
    assert (files_of_others / "a.mp3").read_bytes() == before


@pytest.mark.parametrize("user", [0, 1234])
def test_an_undo_by_root_or_by_the_former_owner_gives_files_back_unless_they_changed_hands_since(
    files_of_others, user
):
    write(files_of_others, files_of_others / "run", owner="change")
    os.seteuid(0)
    os.chown(files_of_others / "b.mp3", 77, 77)
    os.chown(files_of_others / "run", user, 2345)
    old_groups, old_group = os.getgroups(), os.getegid()
    os.setgroups([2345])
    os.setegid(2345)
    os.seteuid(user)
    try:
        assert undo(f"{files_of_others}/run") == ({"restored"} if user == 0 else {"restored", "skipped"})
    finally:
        os.seteuid(0)
        os.setegid(old_group)
        os.setgroups(old_groups)
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in files_of_others.glob("*.mp3")}
    assert owners == {"a.mp3": (1234, 2345), "b.mp3": (77, 77), "c.mp3": (1234, 2345)}
    assert (files_of_others / "a.mp3").read_bytes() == SONG.read_bytes()


def test_nobody_replaces_files_of_others_in_a_sticky_folder(files_of_others):
    os.seteuid(0)
    files_of_others.chmod(0o1777)
    os.seteuid(NOBODY)
    assert set(planned(files_of_others, owner="change").values()) == {"no-permission"}


def test_files_of_this_user_in_a_folder_of_another_are_written(music, as_nobody):
    if os.geteuid() == 0:
        for path in music.iterdir():
            os.chown(path, NOBODY, os.getegid())
        music.chmod(0o777)
    as_nobody()
    assert set(planned(music).values()) == {None}
    assert {row["status"] for row in write(music, music / "run").values()} == {"written"}


# Disks that can be mounted here


def test_a_full_disk_is_named_and_every_file_is_whole(tmp_path):
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2500k", "none") as disk:
        for name in ("a.mp3", "b.mp3", "c.mp3", "d.mp3", "e.mp3"):
            shutil.copyfile(SONG, disk / name)
        (disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(disk).free - 300_000))
        with pytest.raises(OSError, match="No space left") as found:
            write(disk, tmp_path)
        assert str(disk) in describe_os_error(found.value)
        assert "free some space" in describe_os_error(found.value)
        assert {path.name for path in disk.iterdir()} == {*(f"{it}.mp3" for it in "abcde"), "ballast"}
        (disk / "ballast").unlink()
        assert tag([request_row(path) for path in sorted(disk.glob("*.mp3"))], str(tmp_path / "again")) == {
            "written"
        }


def test_an_overlay_is_tagged_and_its_lower_layer_stays(tmp_path, music, open_folder):
    with mounted(tmp_path / "layers", "-t", "tmpfs", "none") as layers:
        for name in ("upper", "work"):
            (layers / name).mkdir()
        options = f"lowerdir={music},upperdir={layers}/upper,workdir={layers}/work"
        with mounted(tmp_path / "merged", "-t", "overlay", "-o", options, "overlay") as merged:
            assert {row["status"] for row in write(merged, open_folder).values()} == {"written"}
            assert read_genres(merged / "a.mp3") == GENRES
            assert undo(str(open_folder)) == {"restored"}
    assert (music / "a.mp3").read_bytes() == SONG.read_bytes()


def test_a_disk_that_is_mounted_read_only_is_named(tmp_path, music, open_folder):
    with mounted(tmp_path / "frozen", "--bind", "-o", "ro", str(music)) as frozen:
        assert set(planned(frozen).values()) == {"read-only"}
        done = write(frozen, open_folder)
    assert {row["reason"] for row in done.values()} == {"read-only"}
    assert "mounted read-only" in done["a.mp3"]["detail"]


def test_copies_within_their_source_are_refused_under_another_mount_of_it(tmp_path, music):
    with (
        mounted(tmp_path / "again", "--bind", str(music)) as again,
        pytest.raises(BadInput, match="copies would lie within their source"),
    ):
        check_apart(again / "copies", music)


def test_an_immutable_file_is_found_before_anything_is_written(music):
    if subprocess.run(["chattr", "+i", music / "b.mp3"], capture_output=True, check=False).returncode:
        pytest.skip("this disk or this user cannot make files immutable")
    try:
        assert planned(music) == {"a.mp3": None, "b.mp3": "read-only", "c.mp3": None}
    finally:
        subprocess.run(["chattr", "-i", music / "b.mp3"], check=True)


def test_an_error_without_a_path_gets_one(tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="quota") as found:
        write_atomic(str(tmp_path / "a.json"), b"x")
    assert str(tmp_path) in describe_os_error(found.value)
    assert "free some space" in describe_os_error(found.value)
