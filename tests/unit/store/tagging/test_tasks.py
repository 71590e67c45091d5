"""Parts of a plan into files and copies, and what is remembered of them."""

import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pytest
from mutagen.id3 import COMM, ID3

from store.fs.signatures import read_signature
from store.tagging.inference_cache import read_inference, write_inference
from store.tagging.predictions import PREDICTIONS_SCHEMA, table_rows
from store.tagging.run import open_run
from store.tagging.swap.drafts import DRAFT_PREFIX
from store.tagging.swap.journal import list_journalled_batches
from store.tagging.swap.settings import WriteSettings
from store.tagging.tasks import sweep_killed_run, undo_parts, write_parts
from store.tags.write import read_genres, read_tags
from tests.support.tagging_model import copy_demo_music

SONGS = {"a.mp3": "200033", "b.mp3": "200034", "c.mp3": "200049"}


@pytest.fixture
def music(tmp_path):
    return copy_demo_music(tmp_path / "music", SONGS)


@pytest.fixture
def run(tmp_path):
    return open_run(f"{tmp_path}/runs", {})


def plan(run, music, genres=("Rock",), **more):
    """Plan to change a and b, and to leave c alone."""
    rows = []
    for name in SONGS:
        row = {"track_id": name, "url": str(music / name), "signature": read_signature(str(music / name))}
        change = {"status": "change", "genres": genres, "custom_tags": {"GENRE_MODEL": "v"}}
        rows.append(row | (change if name != "c.mp3" else {"status": "rejected", "reason": "empty"}) | more)
    run.write_part("plan", "p", pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA))


def write(run, copy_to=None, inference_url=None):
    return write_parts(["p"], run=run, settings=WriteSettings(), copy_to=copy_to, inference_url=inference_url)


def undo(target, tmp_path, dry_run=False):
    return undo_parts(
        ["p"],
        run=open_run(f"{tmp_path}/runs", {"undo": target.name, "dry_run": dry_run}),
        target=target,
        settings=WriteSettings(),
        even_changed=False,
        dry_run=dry_run,
    )


def done(run):
    return {row["track_id"]: row for row in table_rows(run.read_part("done", "p"))}


def test_a_part_is_written_and_undone(run, music, tmp_path):
    before = {name: (music / name).read_bytes() for name in SONGS}
    plan(run, music)
    assert write(run).statuses == {"written": 2, "rejected": 1}
    assert list(done(run)) == list(SONGS)
    assert read_genres(music / "a.mp3") == ["Rock"]
    assert read_tags(music / "a.mp3").custom_tags == {"GENRE_MODEL": "v"}
    assert done(run)["a.mp3"]["signature"] == read_signature(str(music / "a.mp3"))
    assert list_journalled_batches(run.journal_url) == ["p"]
    assert undo(run, tmp_path).statuses == {"restored": 2}
    assert {name: (music / name).read_bytes() for name in SONGS} == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_undo_reports_what_a_file_had_and_gets(run, music, tmp_path, dry_run):
    old = read_genres(music / "a.mp3")
    plan(run, music)
    write(run)
    (sample, *_) = undo(run, tmp_path, dry_run=dry_run).changes
    assert (sample.old_genres, sample.new_genres) == (("Rock",), tuple(old))


def test_drafts_of_a_killed_run_are_swept(run, music):
    plan(run, music)
    (music / "more").mkdir()
    token = hashlib.blake2b(f"{run.journal_url}/p".encode(), digest_size=6).hexdigest()
    left, other = (music / f"{DRAFT_PREFIX}{name}" for name in (token, "0" * 12))
    for folder in (left, other):
        folder.mkdir()
        (folder / "draft.mp3").write_bytes(b"half")
    sweep_killed_run(run)
    assert left.exists(), "the plan was not complete: nothing can have been written"
    run.complete_plan(["p"])
    sweep_killed_run(run)
    assert not left.exists()
    assert other.exists()


def keep_predictions(url, music):
    rows = [
        {
            "track_id": name,
            "signature": read_signature(str(music / name)),
            "status": "predicted",
            "old_genres": read_genres(music / name) if name != "c.mp3" else [],
            "old_custom_tags": {"X": "y"},
        }
        for name in SONGS
    ]
    write_inference(f"{url}/p.parquet", rows)


def predictions(url):
    return {row["track_id"]: row for row in read_inference(f"{url}/p.parquet")}


def test_predictions_stay_valid_when_files_are_written_and_undone(run, music, tmp_path):
    inference_url = f"{tmp_path}/runs/inference/key"
    keep_predictions(inference_url, music)
    before = predictions(inference_url)
    plan(run, music)
    write(run, inference_url=inference_url)
    written = predictions(inference_url)
    assert written["a.mp3"]["signature"] == read_signature(str(music / "a.mp3"))
    assert written["a.mp3"]["old_genres"] == ["Rock"]
    assert written["a.mp3"]["old_custom_tags"] == {"X": "y", "GENRE_MODEL": "v"}
    assert written["c.mp3"] == before["c.mp3"]
    undo(run, tmp_path, dry_run=True)
    assert predictions(inference_url) == written
    undo(run, tmp_path)
    assert predictions(inference_url) == before


def test_a_prediction_for_other_content_than_was_written_stays_as_it_is(run, music, tmp_path):
    inference_url = f"{tmp_path}/runs/inference/key"
    keep_predictions(inference_url, music)
    before = predictions(inference_url)
    os.utime(music / "a.mp3")
    plan(run, music)
    write(run, inference_url=inference_url)
    assert predictions(inference_url)["a.mp3"] == before["a.mp3"]
    assert predictions(inference_url)["b.mp3"] != before["b.mp3"]


def test_the_prediction_of_a_file_that_changed_is_dropped(run, music, tmp_path):
    inference_url = f"{tmp_path}/runs/inference/key"
    keep_predictions(inference_url, music)
    plan(run, music, old_genres=["another"])
    assert write(run, inference_url=inference_url).reasons["skipped"] == {"changed": 2}
    assert list(predictions(inference_url)) == ["c.mp3"]


def test_copies_are_written_beside_nothing_else(run, music, tmp_path):
    before = {name: (music / name).read_bytes() for name in SONGS}
    plan(run, music, ("Folk", "Rock"))
    assert write(run, copy_to=f"{tmp_path}/copies").statuses == {"copied": 2, "rejected": 1}
    assert {name: (music / name).read_bytes() for name in SONGS} == before
    assert read_genres(tmp_path / "copies" / "a.mp3") == ["Folk", "Rock"]
    assert read_tags(tmp_path / "copies" / "a.mp3").custom_tags == {"GENRE_MODEL": "v"}
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == ["a.mp3", "b.mp3"]
    assert not list_journalled_batches(run.journal_url)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "changed"),
    ],
)
def test_a_file_that_is_gone_or_changed_is_not_copied(run, music, tmp_path, damage, reason):
    plan(run, music)
    damage(music / "a.mp3")
    write(run, copy_to=f"{tmp_path}/copies")
    assert (done(run)["a.mp3"]["status"], done(run)["a.mp3"]["reason"]) == ("skipped", reason)
    assert not (tmp_path / "copies" / "a.mp3").exists()
    assert done(run)["b.mp3"]["status"] == "copied"


def test_a_copy_never_leaves_its_folder_and_never_replaces_another_song(run, music, tmp_path):
    plan(run, music)
    copy_demo_music(tmp_path / "copies", {"b.mp3": "200001"})
    other = (tmp_path / "copies" / "b.mp3").read_bytes()
    rows = table_rows(run.read_part("plan", "p"))
    rows[0]["track_id"] = "../escaped.mp3"
    run.write_part("plan", "p", pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA))
    write(run, copy_to=f"{tmp_path}/copies")
    assert done(run)["../escaped.mp3"]["reason"] == "outside-root"
    assert not (tmp_path / "escaped.mp3").exists()
    assert "another file exists already" in done(run)["b.mp3"]["detail"]
    assert (tmp_path / "copies" / "b.mp3").read_bytes() == other


def test_a_copy_that_somebody_worked_on_is_not_replaced(run, music, tmp_path):
    plan(run, music)
    write(run, copy_to=f"{tmp_path}/copies")
    copy = tmp_path / "copies" / "a.mp3"
    tag = ID3(copy)
    tag.add(COMM(encoding=3, lang="eng", desc="", text="ten years of my notes"))
    tag.save(copy)
    before = copy.read_bytes()
    plan(run, music, ("Folk",))
    write(run, copy_to=f"{tmp_path}/copies")
    assert "another file exists already" in done(run)["a.mp3"]["detail"]
    assert copy.read_bytes() == before
    assert read_genres(tmp_path / "copies" / "b.mp3") == ["Folk"], "a copy of ours is made again"


def test_two_runs_at_once_have_their_own_drafts(run, music, tmp_path, monkeypatch):
    """The one would otherwise remove the drafts of the other."""

    def look_and_replace(draft, file):
        if Path(file).is_relative_to(music):
            folders.append(Path(draft).parent)
        replace(draft, file)

    replace, folders = os.replace, []
    monkeypatch.setattr(os, "replace", look_and_replace)
    for each, genre in ((run, "Rock"), (open_run(f"{tmp_path}/runs", {"other": True}), "Folk")):
        plan(each, music, [genre])
        write(each)
    assert [folder.parent for folder in folders] == [music] * 4
    assert len(set(folders)) == 2
