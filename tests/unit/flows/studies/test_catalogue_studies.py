"""The studies audit, metadata and inside on a toy store, in this process: plan, bodies, conclusion, files."""

import csv
import io
from contextlib import contextmanager

import pytest

from flows.cluster.client import open_cluster
from flows.cluster.settings import ClusterSettings
from flows.run_experiments import fill_in, ordered
from flows.studies import audit, inside, metadata
from flows.study_runs.execution import Job, execute_job
from flows.study_runs.ledger import record_row
from flows.study_runs.settings import ExperimentSettings
from flows.study_runs.study import StudyContext
from store.errors import BadInput
from store.reader import open_snapshot
from tests.support.toy_training import SETTINGS, publish_toy_artists

GENRES = ("high", "low")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return publish_toy_artists(str(tmp_path_factory.mktemp("toy") / "store"))


@contextmanager
def studying(study, store, folder, **changed):
    settings = ExperimentSettings(
        study=study.name, store=store, results=str(folder), folds=2, seeds=(0,), split_seeds=(0,), training=SETTINGS,
        **changed,
    )  # fmt: skip
    with open_cluster(ClusterSettings()) as cluster:
        filled, url = fill_in(settings, study), str(folder / study.name)
        yield StudyContext(settings, filled, open_snapshot(store), url, cluster)


def run_all(study, context):
    """Run all that is planned in this process, as the flow does on workers."""
    rows = {}
    while pending := [run for run in study.plan(context, list(rows.values())) if run.name not in rows]:
        for run in pending:
            outcome = execute_job([Job(run.name, run.body, run.prepare())])
            assert outcome.error == ""
            rows[run.name] = record_row(context, run, outcome)
    return ordered(study.plan(context, list(rows.values())), rows)


def read_csv(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_an_audit_finds_the_labels_that_it_swapped_and_none_that_is_right(store, tmp_path):
    with studying(audit.STUDY, store, tmp_path) as context:
        given, check = rows = run_all(audit.STUDY, context)
        conclusion = audit.conclude(context, rows)
    assert (given["agreement"], given["confident_conflicts"]) == (1, 0)
    assert (check["swapped"], check["recall"]) == (1, 1)
    listed = read_csv(conclusion.files["audit.csv"])
    assert len(listed) == 16
    assert {row["conflict"] for row in listed} == {"no"}
    assert "100\N{NARROW NO-BREAK SPACE}% are in the first" in conclusion.answer


def test_an_audit_of_a_genre_of_one_artist_leaves_it_out(tmp_path):
    store = publish_toy_artists(str(tmp_path / "store"), splits=("training",))
    with (
        studying(audit.STUDY, store, tmp_path) as context,
        pytest.raises(BadInput, match="0 genre has two artists or more"),
    ):
        audit.plan(context, [])


def test_metadata_is_compared_with_the_sound_alone(store, tmp_path):
    with studying(metadata.STUDY, store, tmp_path) as context:
        rows = run_all(metadata.STUDY, context)
        conclusion = metadata.conclude(context, rows)
    assert [row["sources"] for row in rows][:2] == ["sound"] * 2
    assert len(rows) == 2 * 5
    assert all(row["weight_artist"] >= 0 for row in rows if row["sources"] == "sound + artist")
    (table,) = conclusion.tables
    assert [row[0] for row in table.rows] == [
        "sound", "sound + album", "sound + artist", "sound + title", "sound + album + artist + title",
    ]  # fmt: skip
    assert "16 of 16 tracks have no album: there it adds nothing." in conclusion.warnings


def test_a_network_and_a_catalogue_are_shown_inside(store, tmp_path):
    with studying(inside.STUDY, store, tmp_path, models=("shallow",)) as context:
        rows = run_all(inside.STUDY, context)
        conclusion = inside.conclude(context, rows)
    assert [row["part"] for row in rows] == ["network", "catalogue"]
    assert {figure.name for figure in conclusion.figures} == {"saliency", "maxima"}
    assert set(conclusion.files) == {
        "map.html",
        "neighbours.csv",
        "typical_tracks.csv",
        "wrong_predictions.csv",
    }
    assert conclusion.files["map.html"].count(b'class="point ') == 16
    neighbours = read_csv(conclusion.files["neighbours.csv"])
    assert all(row["genre"] == row["neighbour_genre"] for row in neighbours if row["rank"] == "1")
    assert all(row["artist"] != row["neighbour_artist"] for row in neighbours)


def test_a_model_without_a_network_cannot_be_shown_inside(store, tmp_path):
    with (
        studying(inside.STUDY, store, tmp_path, models=("svm",)) as context,
        pytest.raises(BadInput, match="--models svm: this study explains one network"),
    ):
        inside.plan(context, [])
