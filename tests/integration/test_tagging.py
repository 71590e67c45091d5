"""Tagging a folder with real Dask processes: dry run, write, apply, undo, go on."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cluster.settings import ClusterSettings
from flows.settings import TagSettings, UndoSettings
from flows.tag_catalogue import make_inference_config, make_request, tag_catalogue
from flows.undo_tagging import undo_tagging
from preprocessing.decode.settings import WindowSettings
from store.errors import BadInput
from store.fs.parquet import read_table, write_table
from store.tagging.predictions import INFERENCE_SCHEMA, table_rows
from store.tags.write import read_genres, write_genres
from tests.support.audio_hash import audio_hash
from tests.support.dask_cluster import Host, scheduler, workers
from tests.support.processes import start_in_foreground
from tests.support.tagging_model import GENRES, copy_demo_music, publish_small_model

SONGS = {"a/1.mp3": "200033", "a/2.mp3": "200034", "b/3.mp3": "200035", "broken.mp3": "200049"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("models"))
    publish_small_model(root)
    return root


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a scheduler and a worker once for all tests: each start takes seconds."""
    host = Host("127.0.0.1")
    with scheduler() as address, workers(address, [host, host], tmp_path_factory.mktemp("dask")):
        yield ClusterSettings(kind="scheduler", scheduler=address, connect_timeout_s=200)


@pytest.fixture
def music(tmp_path):
    return copy_demo_music(tmp_path / "music", SONGS)


@pytest.fixture
def common(music, models, cluster, tmp_path):
    return {
        "source": str(music),
        "models": models,
        "runs": f"{tmp_path}/runs",
        "windows": WindowSettings(count=1, length_s=3.0),
        "files_per_batch": 2,
        "cluster": cluster,
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def replace_cached_probabilities(runs: Path, probabilities: list[float]) -> list[str]:
    """Replace the cached probabilities, which shows later whether files were predicted again; return their names."""
    replaced = []
    for part in (runs / "inference").rglob("*.parquet"):
        rows = table_rows(read_table(str(part)))
        for row in rows:
            if row["status"] == "predicted":
                row["probabilities"] = probabilities
                replaced.append(row["track_id"])
        write_table(str(part), pa.Table.from_pylist(rows, schema=INFERENCE_SCHEMA))
    return replaced


def test_dry_run_write_and_undo(common, music, tmp_path):
    (music / "@eaDir").mkdir()
    (music / "@eaDir/1.mp3").write_bytes(b"a thumbnail")
    (music / "cover.jpg").write_bytes(b"")
    before, hashes = contents(music), {name: audio_hash(music / name) for name in list(SONGS)[:3]}
    dry = tag_catalogue(TagSettings(**common))
    assert dry.dry_run
    assert dry.statuses == {"change": 3, "rejected": 1}
    assert contents(music) == before
    accounted = "3 change, 1 rejected, 1 not audio (1 .jpg), 1 excluded (1 nas-index)"
    assert f"all files of the source (6): {accounted}" in dry.lines()
    assert not any("media servers" in line for line in dry.lines())
    lines = {
        row["track_id"]: row
        for row in csv.DictReader(Path(dry.csv).read_text(encoding="utf-8-sig").splitlines())
    }
    broken = [lines["broken.mp3"][name] for name in ("status", "reason", "detail")]
    assert broken == ["rejected", "empty", "0 bytes"]
    assert "spectrogram-one tag --apply" in " ".join(dry.lines())
    assert "a/1.mp3" in Path(dry.page).read_text()

    written = tag_catalogue(TagSettings(**common, write=True))
    assert written.statuses == {"written": 3, "rejected": 1}
    assert any("media servers" in line and "--mtime now" in line for line in written.lines())
    for name, hashed in hashes.items():
        assert read_genres(music / name) == [lines[name]["genres"]]
        assert audio_hash(music / name) == hashed
    again = tag_catalogue(TagSettings(**common, write=True))
    assert again.statuses == {"kept": 3, "rejected": 1}

    assert again.commands == [], "there is nothing to undo"
    tried = undo_tagging(
        UndoSettings(run=written.run, runs=common["runs"], dry_run=True, cluster=common["cluster"])
    )
    assert tried.statuses == {"would-restore": 3}
    assert [(it["had"], it["gets"]) for it in tried.changes if it["file"] == "a/1.mp3"] == [
        (lines["a/1.mp3"]["genres"], "")
    ]
    assert tried.commands == [
        ("restore these files", f"spectrogram-one undo {written.run} --runs {common['runs']}")
    ]
    assert contents(music) != before
    undone = undo_tagging(UndoSettings(run=written.run, runs=common["runs"], cluster=common["cluster"]))
    assert undone.statuses == {"restored": 3}
    assert contents(music) == before
    redone = undo_tagging(UndoSettings(run="latest", runs=common["runs"], cluster=common["cluster"]))
    assert redone.statuses == {"restored": 3}
    assert read_genres(music / "a/1.mp3") == [lines["a/1.mp3"]["genres"]]
    undo_tagging(UndoSettings(run="latest", runs=common["runs"], cluster=common["cluster"]))
    for path in music.rglob("*.mp3"):
        path.chmod(0o640)
    applied = tag_catalogue(TagSettings(apply=dry.csv, runs=common["runs"], cluster=common["cluster"]))
    assert applied.statuses == {"written": 3, "rejected": 1}, "the dry run is still right, as a table too"


def test_a_dry_run_is_applied_as_a_person_left_it(common, music):
    dry = tag_catalogue(TagSettings(**common))
    rows = table_rows(pq.read_table(dry.predictions))
    for row in rows:
        if row["track_id"] == "a/1.mp3":
            row["genres"] = ["Polka", "Old-Time / Historic"]
    kept = [row for row in rows if row["track_id"] != "a/2.mp3"]
    table = pq.read_table(dry.predictions)
    pq.write_table(
        pa.Table.from_pylist(kept, schema=table.schema).replace_schema_metadata(table.schema.metadata),
        dry.predictions,
    )
    with (music / "b/3.mp3").open("ab") as file:
        file.write(b"somebody else's")
    before = contents(music)
    apply = {"apply": dry.predictions, "runs": common["runs"], "cluster": common["cluster"]}
    with pytest.raises(BadInput, match=r"'a/1.mp3' is to get 'Old-Time / Historic', which neither the model"):
        tag_catalogue(TagSettings(**apply))
    applied = tag_catalogue(TagSettings(**apply, allow_new_genres=True))
    assert applied.statuses == {"written": 1, "skipped": 1, "rejected": 1}
    assert [(it["file"], it["status"]) for it in applied.unchanged if "changed" in it["status"]] == [
        ("b/3.mp3", "skipped: changed")
    ]
    assert read_genres(music / "a/1.mp3") == ["Polka", "Old-Time / Historic"]
    assert {name for name, data in contents(music).items() if data != before[name]} == {"a/1.mp3"}
    undo_tagging(UndoSettings(run=applied.run, runs=common["runs"], cluster=common["cluster"]))
    assert contents(music) == before


def test_predictions_never_lead_out_of_their_source(common, music, tmp_path):
    dry = tag_catalogue(TagSettings(**common))
    outside = copy_demo_music(tmp_path / "outside", {"x.mp3": "200033"}) / "x.mp3"
    table = pq.read_table(dry.predictions)
    before, apply = outside.read_bytes(), TagSettings(apply=dry.predictions, runs=common["runs"])

    def lead_outside(**names):
        row = {**table_rows(table)[0], "url": str(outside), **names}
        changed = pa.Table.from_pylist([row], schema=table.schema)
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), dry.predictions)

    lead_outside(track_id="../outside/x.mp3")
    with pytest.raises(BadInput, match=r"row 1: '../outside/x.mp3' is no file of the run"):
        tag_catalogue(apply)
    lead_outside()
    applied = tag_catalogue(apply)
    assert applied.statuses == {"skipped": 1}
    assert outside.read_bytes() == before


def test_written_files_are_not_predicted_again_for_another_policy(common, music, tmp_path):
    tag_catalogue(TagSettings(**common, write=True))
    replace_cached_probabilities(tmp_path / "runs", [1.0, 0.0])
    summary = tag_catalogue(TagSettings(**common, policy={"policy": "replace"}))
    predicted_genres = table_rows(pq.read_table(summary.predictions))
    assert [row["predicted_genres"] for row in predicted_genres if row["predicted_genres"]] == [
        ["Electronic"]
    ] * 3, "predicted again, they would have other genres"


def test_copies_are_tagged_and_the_files_are_not(common, music, tmp_path):
    write_genres(music / "a/2.mp3", ["Polka"])
    before = contents(music)
    copied = tag_catalogue(TagSettings(**common, copy_to=f"{tmp_path}/copies"))
    assert copied.statuses == {"copied": 2, "kept": 1, "rejected": 1}
    assert contents(music) == before
    copies = tmp_path / "copies"
    assert sorted(contents(copies)) == ["a/1.mp3", "b/3.mp3"]
    assert read_genres(copies / "a/1.mp3")[0] in GENRES
    assert audio_hash(copies / "a/1.mp3") == audio_hash(music / "a/1.mp3")
    with pytest.raises(BadInput, match="this run wrote into no file, so there is nothing to undo"):
        undo_tagging(UndoSettings(run=copied.run, runs=common["runs"], cluster=common["cluster"]))


def test_one_file_is_tagged_copied_and_restored_and_no_other(common, music):
    song, before = music / "a/1.mp3", contents(music)
    one = common | {"source": str(song)}
    dry = tag_catalogue(TagSettings(**one))
    assert f"{song}: 1 change" in dry.lines()[0]
    assert "all files of the source (1): 1 change" in dry.lines()
    copied = tag_catalogue(TagSettings(**one, copy_to=f"{music}/a/copies"))
    assert copied.statuses == {"copied": 1}
    assert contents(music / "a/copies").keys() == {"1.mp3"}
    shutil.rmtree(music / "a/copies")
    applied = tag_catalogue(TagSettings(apply=dry.csv, runs=common["runs"], cluster=common["cluster"]))
    assert applied.statuses == {"written": 1}
    assert read_genres(song)
    assert {name for name, content in contents(music).items() if content != before[name]} == {"a/1.mp3"}
    undone = undo_tagging(UndoSettings(run=applied.run, runs=common["runs"], cluster=common["cluster"]))
    assert undone.statuses == {"restored": 1}
    assert contents(music) == before


def test_a_run_that_was_undone_before_it_was_over_begins_anew(common, music):
    before = contents(music)
    killed = tag_catalogue(TagSettings(**common, write=True))
    (run,) = (path for path in Path(common["runs"]).iterdir() if path.name == killed.run)
    (run / "summary.json").unlink()  # as if it had been killed at its end
    undone = undo_tagging(UndoSettings(run="latest", runs=common["runs"], cluster=common["cluster"]))
    assert undone.statuses == {"restored": 3}
    assert contents(music) == before
    again = tag_catalogue(TagSettings(**common, write=True))
    assert again.run != killed.run
    assert again.statuses == {"written": 3, "rejected": 1}
    assert read_genres(music / "a/1.mp3")


def test_a_map_that_was_corrected_asks_for_another_run(common, tmp_path):
    names = tmp_path / "genres.toml"
    asked = []
    for name in ("Rap", "Hip Hop"):
        names.write_text(f'[genres]\n"Rock" = "{name}"\n')
        settings = TagSettings(**common, genre_map=str(names))
        asked.append(make_request(settings, make_inference_config(settings)))
    assert asked[0] != asked[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genres": ("Polka",)}, "genre 'Polka': not one of this model's: Electronic, Rock"),
        ({"model": "nobody"}, "no model version"),
        ({"source": "nowhere"}, "nowhere: no such file or folder"),
        ({"source": ""}, "--source, --apply: give one of them"),
        ({"copy_to": "{music}/copies"}, "copies would lie within their source"),
        ({"copy_to": "{music}/.."}, "lies within it; name a folder for copies alone"),
        ({"source": "{music}/a/1.mp3", "copy_to": "{music}/a"}, "lies within it"),
        ({"copy_to": "{music}/a/1.mp3"}, "this is a file; name a folder for the copies"),
        ({"copy_to": "s3://bucket/copies"}, "copies are local files"),
        ({"genre_map": "nowhere.toml"}, "nowhere.toml: no such file"),
        ({"source": "", "apply": "nowhere.parquet"}, "nowhere.parquet: no such file; wanted"),
    ],
)
def test_what_cannot_be_tagged_is_refused_in_one_line(change, message, common, music):
    answer = {"genre_selection": {"genres": change["genres"]}} if "genres" in change else change
    filled = {name: it.format(music=music) if isinstance(it, str) else it for name, it in answer.items()}
    with pytest.raises(BadInput, match=message):
        tag_catalogue(TagSettings(**{**common, **filled}))


def test_a_killed_run_goes_on_without_predicting_twice(common, music, models, tmp_path):
    """Kill the whole of it with SIGKILL once a file is predicted, and once one is written."""
    copy_demo_music(music, {f"more/{number}.mp3": f"2000{number:02}" for number in range(1, 30)})
    hashes = {path: audio_hash(path) for path in music.rglob("*.mp3") if path.stat().st_size}
    command = [
        Path(sys.executable).with_name("spectrogram-one"), "tag", music, "--write", f"--models={models}",
        f"--runs={tmp_path}/runs", "--windows.count=1", "--windows.length-s=3", "--files-per-batch=2",
        "--cluster.workers=2",
    ]  # fmt: skip
    for kind in ("plan", "done"):
        with start_in_foreground(command, stderr=subprocess.DEVNULL) as process:
            while not list((tmp_path / "runs").glob(f"*/{kind}/*.parquet")):
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
        if kind == "plan":
            replaced = replace_cached_probabilities(tmp_path / "runs", [0.25, 0.75])
    assert replaced
    ended = tag_catalogue(TagSettings(**common, write=True))
    assert ended.statuses == {"written": len(hashes), "rejected": 1}
    probabilities_of = {
        row["track_id"]: row["probabilities"] for row in table_rows(pq.read_table(ended.predictions))
    }
    assert {tuple(probabilities_of[name]) for name in replaced} == {(0.25, 0.75)}, "predicted twice"
    assert {path: audio_hash(path) for path in hashes} == hashes
    assert not list(music.rglob(".*")), "drafts of the killed run are left"
    (run,) = [path for path in (tmp_path / "runs").iterdir() if path.name != "inference"]
    assert run.name == ended.run
    undone = undo_tagging(UndoSettings(run=ended.run, runs=common["runs"], cluster=common["cluster"]))
    assert set(undone.statuses) <= {"restored", "as-it-was"}
    assert undone.statuses["restored"] == len(hashes)
