from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from store.errors import BadInput
from store.fs.parquet import write_table
from store.tagging.predictions import PREDICTIONS_SCHEMA
from store.tagging.run import find_run, inference_url, list_runs, open_run
from store.tagging.swap.journal import list_journalled_batches

ASKED = {"source": "/music", "write": True}


@pytest.fixture(params=["disk", "s3"])
def runs(request, tmp_path):
    return str(tmp_path / "runs") if request.param == "disk" else request.getfixturevalue("s3_url")


def table(*names):
    return pa.Table.from_pylist([{"track_id": name} for name in names], schema=PREDICTIONS_SCHEMA)


def test_a_run_that_is_not_over_is_taken_up_and_one_that_is_over_is_not(runs):
    first = open_run(runs, ASKED)
    assert open_run(runs, ASKED) == first
    assert open_run(runs, {**ASKED, "write": False}) != first
    first.finish({"statuses": {"written": 3}})
    second = open_run(runs, ASKED)
    assert second != first
    assert first in list_runs(runs)
    assert first.request() == ASKED
    assert (first.summary(), second.summary()) == ({"statuses": {"written": 3}}, None)


def test_a_clock_that_was_set_back_does_not_change_which_run_is_the_latest(runs, monkeypatch):
    class SetBack(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2001, 1, 1, tzinfo=tz)

    first = open_run(runs, ASKED)
    first.finish({"statuses": {}})
    monkeypatch.setattr("store.tagging.run.datetime", SetBack)
    second = open_run(runs, ASKED)
    second.finish({"statuses": {}})
    third = open_run(runs, ASKED)
    assert [run.name for run in list_runs(runs)] == [first.name, second.name, third.name]


def test_parts_come_back_in_the_order_of_the_plan(runs):
    run = open_run(runs, ASKED)
    for part, name in (("b", "x"), ("a", "y"), ("stale", "z")):
        run.write_part("plan", part, table(name))
    assert run.planned_parts() is None
    run.complete_plan(["b", "a"])
    assert run.planned_parts() == ["b", "a"]
    assert [it["track_id"].to_pylist() for it in run.tables("plan", ["b", "a"])] == [["x"], ["y"]]
    assert run.list_parts("plan") == ["a", "b", "stale"]


def test_a_run_has_begun_to_write_with_its_first_part_done_or_journalled(runs):
    run, other = open_run(runs, ASKED), open_run(runs, {"write": False})
    run.write_part("plan", "a", table("x"))
    assert not run.has_started_writing()
    run.write_part("done", "a", table("x"))
    assert run.has_started_writing()
    assert not other.has_started_writing()


def test_a_run_is_found_by_the_beginning_of_its_name_if_it_wrote(runs):
    with pytest.raises(BadInput, match="no run latest that wrote into files; `spectrogram-one tags runs`"):
        find_run(runs, "latest")
    dry, wet = open_run(runs, {"write": False}), open_run(runs, ASKED)
    write_table(f"{wet.journal_url}/a.parquet", table("x"))
    assert find_run(runs, "latest") == wet
    assert find_run(runs, wet.name) == wet
    with pytest.raises(BadInput, match="this run wrote into no file, so there is nothing to undo"):
        find_run(runs, dry.name)
    with pytest.raises(BadInput, match="2 runs begin with 2"):
        find_run(runs, "2")
    with pytest.raises(BadInput, match="no run 1999 that wrote"):
        find_run(runs, "1999")


def test_a_run_that_does_not_say_what_was_asked_for_is_not_taken_up(runs):
    first = open_run(runs, ASKED)
    first.finish({})
    second = open_run(runs, ASKED)
    key = second.name.rpartition("-")[2]
    write_table(f"{runs}/29991231T000000000000-{key}/plan/a.parquet", table("x"))  # killed before run.json
    assert open_run(runs, ASKED) == second


def test_the_latest_undo_that_is_not_over_goes_on_and_one_that_is_over_is_undone(runs):
    run = open_run(runs, ASKED)
    undo = open_run(runs, {"undo": run.name})
    for each in (run, undo):
        write_table(f"{each.journal_url}/a-1.parquet", table("x"))
    assert find_run(runs, "latest") == run
    undo.finish({})
    assert find_run(runs, "latest") == undo


def test_what_a_killed_process_left_is_no_part(tmp_path):
    run = open_run(f"{tmp_path}/runs", ASKED)
    run.write_part("done", "a", table("x"))
    write_table(f"{run.journal_url}/a-1.parquet", table("x"))
    for folder in ("done", "journal"):
        Path(run.url, folder, ".0123.part.parquet").write_bytes(b"half")
    assert run.list_parts("done") == ["a"]
    assert list_journalled_batches(run.journal_url) == ["a"]


def test_predictions_are_kept_by_how_they_were_made(runs):
    one, other = (inference_url(runs, {"source": "/music", "windows": count}) for count in (3, 4))
    assert one == inference_url(runs, {"windows": 3, "source": "/music"})
    assert one != other
    assert list_runs(runs) == []
