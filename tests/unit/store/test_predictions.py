import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.predictions import (
    PREDICTIONS_SCHEMA,
    keep_heard,
    read_heard,
    signature,
    write_predictions,
    write_tags,
)
from store.tags import read_genres, write_genres
from tests.formats import DEMO_TRACK


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "music" / "song.mp3"
    path.parent.mkdir()
    shutil.copyfile(DEMO_TRACK, path)
    return path


def row_of(path, genres=("Rock",)):
    size_bytes, mtime_ns, ctime_ns = signature(path)
    return {
        "track_id": path.name,
        "url": str(path),
        "size_bytes": size_bytes,
        "mtime_ns": mtime_ns,
        "ctime_ns": ctime_ns,
        "status": "change",
        "genres": list(genres),
    }


def only(table):
    (row,) = table.to_pylist()
    return row


def test_genres_are_written_into_the_file(song):
    done = only(write_tags([row_of(song)], copy_to=None))
    assert done["status"] == "written"
    assert read_genres(song) == ["Rock"]


def test_genres_are_written_into_a_copy_and_the_file_stays(song, tmp_path):
    before = song.read_bytes()
    done = only(write_tags([row_of(song, ["Folk", "Rock"])], copy_to=str(tmp_path / "copies")))
    assert done["status"] == "copied"
    assert read_genres(tmp_path / "copies" / "song.mp3") == ["Folk", "Rock"]
    assert song.read_bytes() == before


def test_a_file_that_changed_since_is_left_alone(song):
    row = row_of(song)
    song.write_bytes(song.read_bytes() + b"more")
    before = song.read_bytes()
    done = only(write_tags([row], copy_to=None))
    assert (done["status"], done["reason"]) == ("failed", "changed")
    assert song.read_bytes() == before


def test_a_file_that_is_gone_or_no_audio_fails_alone(song, tmp_path):
    gone, page = tmp_path / "gone.mp3", tmp_path / "page.mp3"
    gone.write_bytes(b"x")
    page.write_bytes(b"<html>" * 99)
    rows = [row_of(gone), row_of(page), row_of(song)]
    gone.unlink()
    done = write_tags(rows, copy_to=None).to_pylist()
    assert [(row["status"], row["reason"]) for row in done] == [
        ("failed", "missing"),
        ("failed", "unsupported"),
        ("written", None),
    ]


def test_what_was_heard_is_kept_batch_by_batch(tmp_path):
    run = str(tmp_path / "run")
    assert read_heard(run).num_rows == 0
    for name in ("a", "b"):
        keep_heard(run, pa.Table.from_pylist([{"track_id": name}], schema=PREDICTIONS_SCHEMA))
    assert sorted(read_heard(run)["track_id"].to_pylist()) == ["a", "b"]
    url = write_predictions(run, read_heard(run))
    assert pq.read_table(url).equals(read_heard(run))
    assert write_predictions(run, read_heard(run)) != url, "an earlier run's result stays"


def test_a_task_that_is_run_again_finds_its_own_work_done(song):
    row = row_of(song)
    assert only(write_tags([row], copy_to=None))["status"] == "written"
    assert only(write_tags([row], copy_to=None))["status"] == "written"


def test_a_genre_that_somebody_wrote_meanwhile_is_not_overwritten(song):
    row = row_of(song, ["Jazz"])
    write_genres(song, ["Folk"])
    os.utime(song, ns=(row["mtime_ns"], row["mtime_ns"]))
    done = only(write_tags([row], copy_to=None))
    assert (done["status"], done["reason"]) == ("failed", "changed")
    assert read_genres(song) == ["Folk"]


def test_a_copy_never_replaces_another_song(song, tmp_path):
    (tmp_path / "copies").mkdir()
    other = tmp_path / "copies" / "song.mp3"
    shutil.copyfile("tests/data/demo_music/fma_small/200/200002.mp3", other)
    before = other.read_bytes()
    done = only(write_tags([row_of(song)], copy_to=str(tmp_path / "copies")))
    assert (done["status"], done["reason"]) == ("failed", "unsupported")
    assert "another file is there already" in done["detail"]
    assert other.read_bytes() == before
