"""One batch of real files, from inference to the plan."""

import os
import shutil
from dataclasses import replace

import pyarrow as pa
import pytest

from store.fs.listing import FoundFile, stream_files
from store.fs.parquet import read_table, write_table
from store.fs.signatures import read_signature
from store.tagging.batching import batch_name
from store.tagging.predictions import INFERENCE_SCHEMA, table_rows
from store.tagging.run import open_run
from store.tags.policy import TagPolicy
from store.tags.write import write_genres
from tests.support.tagging_model import (
    DEMO,
    GENRES,
    copy_demo_music,
    publish_small_model,
    small_inference_config,
)
from training.inference.tag_task import plan_batch, reject_crashing_file


@pytest.fixture(scope="module")
def version_url(tmp_path_factory):
    return publish_small_model(str(tmp_path_factory.mktemp("models")))


@pytest.fixture
def config(version_url):
    return small_inference_config(version_url)


@pytest.fixture
def music(tmp_path):
    names = {"a.mp3": "200033", "b.mp3": "200034", "page.mp3": "200050", "tagged.mp3": "200001"}
    folder = copy_demo_music(tmp_path / "music", names)
    write_genres(folder / "tagged.mp3", ["Polka"])
    (folder / "lost.mp3").symlink_to("/etc/passwd")
    return folder


def plan_folder(music, tmp_path, config, run=None):
    """Plan the folder as one batch; give the rows by name, and the batch."""
    batch = list(stream_files(str(music)))
    run = run or open_run(f"{tmp_path}/runs", {"test": len(list(tmp_path.glob("runs/*")))})
    statistics = plan_batch(batch, run=run, inference_url=f"{tmp_path}/inference", config=config)
    rows = {row["track_id"]: row for row in table_rows(run.read_part("plan", batch_name(batch)))}
    assert sum(statistics.statuses.values()) == len(batch) == len(rows)
    return rows


def test_every_file_is_planned(music, tmp_path, config):
    before = {path: path.read_bytes() for path in music.iterdir()}
    rows = plan_folder(music, tmp_path, config)
    assert {name: (row["status"], row["reason"]) for name, row in rows.items()} == {
        "a.mp3": ("change", None),
        "b.mp3": ("change", None),
        "lost.mp3": ("skipped", "outside-root"),
        "page.mp3": ("rejected", "not-audio"),
        "tagged.mp3": ("kept", "has-genre"),
    }
    row = rows["a.mp3"]
    assert row["genres"] == row["predicted_genres"]
    assert row["genres"][0] in GENRES
    assert row["confidence"] == pytest.approx(max(row["probabilities"]), rel=2.0**-23)
    assert row["signature"] == read_signature(str(music / "a.mp3"))
    assert row["model_version"] == config.version
    assert {path: path.read_bytes() for path in music.iterdir()} == before


def stored_inference(tmp_path):
    (part,) = (tmp_path / "inference").iterdir()
    return part, {row["track_id"]: row for row in table_rows(read_table(str(part)))}


def replace_probabilities(tmp_path, probabilities):
    """Change the stored predictions, so that computing them again shows."""
    part, rows = stored_inference(tmp_path)
    for row in rows.values():
        if row["status"] == "predicted":
            row["probabilities"] = probabilities
    write_table(str(part), pa.Table.from_pylist(list(rows.values()), schema=INFERENCE_SCHEMA))


def test_only_changed_files_are_predicted_again(music, tmp_path, config):
    plan_folder(music, tmp_path, config)
    replace_probabilities(tmp_path, [0.0, 1.0])
    with (music / "b.mp3").open("ab") as file:
        file.write(b"more")
    rows = plan_folder(music, tmp_path, config)
    assert rows["a.mp3"]["probabilities"] == [0.0, 1.0]
    assert rows["a.mp3"]["predicted_genres"] == ["Rock"]
    assert rows["b.mp3"]["probabilities"] != [0.0, 1.0]


def test_another_policy_predicts_only_the_files_left_out_before(music, tmp_path, config):
    plan_folder(music, tmp_path, config)
    replace_probabilities(tmp_path, [0.0, 1.0])
    rows = plan_folder(music, tmp_path, replace(config, policy=TagPolicy(policy="replace")))
    assert rows["a.mp3"]["predicted_genres"] == ["Rock"]
    assert rows["tagged.mp3"]["status"] == "change"
    again = plan_folder(music, tmp_path, config)
    assert (again["tagged.mp3"]["status"], again["tagged.mp3"]["predicted_genres"]) == ("kept", None)


def test_a_missing_file_is_tried_again(music, tmp_path, config):
    gone = FoundFile("gone.mp3", str(music / "gone.mp3"), 3, "3-1-1", None)
    run = open_run(f"{tmp_path}/runs", {"test": "gone"})
    for there in (False, True):
        if there:
            shutil.copyfile(DEMO / "200033.mp3", music / "gone.mp3")
        plan_batch([gone], run=run, inference_url=f"{tmp_path}/inference", config=config)
        (row,) = table_rows(run.read_part("plan", batch_name([gone])))
        assert (row["status"], row["reason"]) == (("change", None) if there else ("rejected", "missing"))


def test_rejects_are_tried_again_on_request(music, tmp_path, config):
    os.truncate(music / "a.mp3", 900)
    assert plan_folder(music, tmp_path, config)["a.mp3"]["status"] == "rejected"
    part, rows = stored_inference(tmp_path)
    rows["a.mp3"]["detail"] = "of an earlier run"
    write_table(str(part), pa.Table.from_pylist(list(rows.values()), schema=INFERENCE_SCHEMA))
    assert plan_folder(music, tmp_path, config)["a.mp3"]["detail"] == "of an earlier run"
    assert (
        plan_folder(music, tmp_path, replace(config, retry_rejects=True))["a.mp3"]["detail"]
        != "of an earlier run"
    )


def test_a_file_that_crashes_its_workers_is_rejected(music, tmp_path, config):
    run = open_run(f"{tmp_path}/runs", {"test": "crash"})
    file = FoundFile("a.mp3", str(music / "a.mp3"), 3, "3-1-1", None)
    assert reject_crashing_file(file, run=run, config=config).statuses == {"rejected": 1}
    (row,) = table_rows(run.read_part("plan", batch_name([file])))
    assert (row["status"], row["reason"]) == ("rejected", "decoder-killed")
