"""What the end of a tagging run says to a person who has read nothing."""

import pyarrow as pa
import pytest

from flows.reporting.tagging_summary import TagSummary, summarise_tagging
from store.tagging.predictions import PREDICTIONS_SCHEMA
from store.tagging.run import TaggingRun
from training.report.tagging_page import RunFacts

KEPT = {"track_id": "a.mp3", "status": "kept", "reason": "has-genre", "old_genres": ["Rock"]}
CHANGED = {"track_id": "b.mp3", "status": "change", "old_genres": [], "genres": ["Jazz"]}


def summary(folder, mode: str, policy: str) -> TagSummary:
    run = TaggingRun(f"{folder}/runs/1")
    table = pa.Table.from_pylist([KEPT, CHANGED], schema=PREDICTIONS_SCHEMA)
    run.write_part("plan", "0", table)
    facts = RunFacts(
        name="1",
        mode=mode,
        source="/music",
        seconds=1.0,
        predictions=f"{run.url}/predictions.parquet",
        csv_url=f"{run.url}/predictions.csv",
        settings={"policy": {"policy": policy}},
    )
    return summarise_tagging(run, "plan", ["0"], facts)


@pytest.mark.parametrize(
    ("mode", "policy", "is_said"),
    [("dry-run", "fill", True), ("dry-run", "append", False), ("write", "fill", False)],
)
def test_a_dry_run_names_the_flag_that_includes_files_which_have_a_genre(tmp_path, mode, policy, is_said):
    lines = summary(tmp_path, mode, policy).lines()
    assert any("--policy append" in line for line in lines) is is_said


def test_no_genre_is_a_word_in_the_table(tmp_path):
    *_, changes, _ = summary(tmp_path, "dry-run", "fill").tables()
    had = next(column for column in changes.columns if column.header == "had")
    assert list(had.cells) == ["(none)"]
