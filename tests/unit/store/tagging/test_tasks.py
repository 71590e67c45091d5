"""Parts of a plan into files and copies, and what is remembered of them."""

import pyarrow as pa
import pytest
from mutagen.id3 import COMM, ID3

from store.fs.parquet import read_table, write_table
from store.fs.stream import read_signature
from store.tagging import local_swap as file_swap
from store.tagging.journal import list_journalled_batches
from store.tagging.predictions import INFERENCE_SCHEMA, PREDICTIONS_SCHEMA, table_rows
from store.tagging.run import open_run
from store.tagging.settings import WriteSettings
from store.tagging.tasks import undo_parts, write_parts
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
    undo = open_run(f"{tmp_path}/runs", {"undo": run.name})
    told = undo_parts(
        ["p"], run=undo, target=run, settings=WriteSettings(), even_changed=False, dry_run=False
    )
    assert told.statuses == {"restored": 2}
    assert {name: (music / name).read_bytes() for name in SONGS} == before


def test_what_was_heard_stays_true_of_what_was_written(run, music, tmp_path):
    inference_url = f"{tmp_path}/inference"
    rows = [
        {
            "track_id": name,
            "signature": "old",
            "status": "predicted",
            "old_genres": [],
            "old_custom_tags": {"X": "y"},
        }
        for name in SONGS
    ]
    write_table(f"{inference_url}/p.parquet", pa.Table.from_pylist(rows, schema=INFERENCE_SCHEMA))
    plan(run, music)
    write(run, inference_url=inference_url)
    heard = {row["track_id"]: row for row in table_rows(read_table(f"{inference_url}/p.parquet"))}
    assert heard["a.mp3"]["signature"] == read_signature(str(music / "a.mp3"))
    assert heard["a.mp3"]["old_genres"] == ["Rock"]
    assert heard["a.mp3"]["old_custom_tags"] == {"X": "y", "GENRE_MODEL": "v"}
    assert heard["c.mp3"] == {**dict.fromkeys(INFERENCE_SCHEMA.names), **rows[2]}


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
    assert "another file is there already" in done(run)["b.mp3"]["detail"]
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
    assert "another file is there already" in done(run)["a.mp3"]["detail"]
    assert copy.read_bytes() == before
    assert read_genres(tmp_path / "copies" / "b.mp3") == ["Folk"], "a copy of ours is made anew"


def test_two_runs_at_once_have_their_own_drafts(run, music, tmp_path, monkeypatch):
    other = open_run(f"{tmp_path}/runs", {"other": True})
    for each in (run, other):
        plan(each, music)
    met = []
    real_sweep = file_swap._sweep
    monkeypatch.setattr(
        file_swap, "_sweep", lambda folders, **more: (met.append(set(folders)), real_sweep(folders, **more))
    )
    write(run)
    write(other)
    assert met[0]
    assert not met[0] & met[2], "the one would sweep what the other is at"
