"""predictions.parquet goes through another program, which may spoil it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.errors import BadInput
from store.tagging.corrections.plan import CorrectedPlan
from store.tagging.predictions import PREDICTIONS_SCHEMA
from store.tagging.run import TaggingRun

RUN = "20261128T101010-abcd"


def row(name: str | None) -> dict:
    return {
        "track_id": name,
        "url": f"/music/{name}",
        "signature": "1-2",
        "status": "change",
        "genres": ["Rock"],
    }


TABLE = pa.Table.from_pylist([row("a.mp3"), row("b.mp3")], schema=PREDICTIONS_SCHEMA)


@pytest.fixture
def runs(tmp_path):
    """A folder with the run that planned the table."""
    run = TaggingRun(f"{tmp_path}/runs/{RUN}")
    run.write_part("plan", "0", TABLE)
    run.complete_plan(["0"])
    return tmp_path / "runs"


def opened(table: pa.Table, url, runs, about=(("source", "/music"), ("run", RUN))) -> list[str]:
    pq.write_table(table.replace_schema_metadata(dict(about)), url)
    return [it["track_id"] for it in CorrectedPlan(str(url), "/music", str(runs)).rows(10)]


def test_a_table_with_fewer_rows_in_another_order_and_the_index_of_pandas_is_read(runs):
    table = TABLE.take([1]).append_column("__index_level_0__", pa.array([7]))
    assert opened(table, runs / RUN / "predictions.parquet", runs) == ["b.mp3"]


@pytest.mark.parametrize("name", ["Genres", "custom_tag", "remark"])
def test_an_unknown_or_misspelt_column_is_refused_by_name(runs, name):
    table = TABLE.append_column(name, pa.array([["Jazz"], None]))
    with pytest.raises(BadInput, match=f"unknown column '{name}'; known are track_id, "):
        opened(table, runs / "mine.parquet", runs)


def test_a_file_that_is_there_twice_is_refused_by_name(runs):
    with pytest.raises(BadInput, match=r"row 3: 'a\.mp3' is in row 1 already"):
        opened(TABLE.take([0, 1, 0]), runs / "mine.parquet", runs)


@pytest.mark.parametrize(
    ("place", "about"),
    [
        ("elsewhere.parquet", {"run": RUN}),
        (f"{RUN}/predictions.parquet", {}),
        (f"{RUN}/x.parquet", {"run": RUN}),
    ],
    ids=["in-the-folder-of-runs", "beside-it-without-metadata", "beside-it"],
)
def test_a_row_of_no_file_of_the_run_is_refused_by_name(runs, place, about):
    table = pa.concat_tables([TABLE, pa.Table.from_pylist([row("c.mp3")], schema=PREDICTIONS_SCHEMA)])
    with pytest.raises(BadInput, match=rf"row 3: 'c\.mp3' is no file of the run {RUN}"):
        opened(table, runs / place, runs, about.items())


def test_without_the_folder_of_its_run_a_table_is_taken_as_it_is(runs, tmp_path):
    table = pa.Table.from_pylist([row("c.mp3"), row(None), row(None)], schema=PREDICTIONS_SCHEMA)
    found = opened(table, tmp_path / "mine.parquet", tmp_path / "no runs")
    assert found == ["c.mp3", "/music/None", "/music/None"]
