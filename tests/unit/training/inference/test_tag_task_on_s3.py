"""A bucket from listing to undo: streamed in batches, downloaded, predicted, written, restored."""

from pathlib import Path

import boto3
import pytest

from preprocessing.catalogue.audio_files import stream_audio
from store.tagging.batch import WriteSettings
from store.tagging.batching import batch_name, iter_batches
from store.tagging.predictions import table_rows
from store.tagging.run import open_run
from store.tagging.swap.journal import read_journal
from store.tagging.tasks import undo_parts, write_parts
from store.tags.write import read_genres
from tests.support.audio_hash import audio_hash
from tests.support.tagging_model import DEMO, publish_small_model, small_inference_config
from training.inference.tag_task import plan_batch


@pytest.fixture
def config(tmp_path):
    return small_inference_config(publish_small_model(str(tmp_path / "models")))


@pytest.fixture
def music(s3_url):
    """Put three songs, a web page and a key that no URL can hold into a bucket."""
    songs = {f"{song}.mp3": (DEMO / f"{song}.mp3").read_bytes() for song in ("200001", "200033", "200034")}
    for name, data in {**songs, "a::b.mp3": b"x", "page.mp3": b"<html>" * 99, "notes.txt": b"x"}.items():
        boto3.client("s3").put_object(Bucket=s3_url.removeprefix("s3://"), Key=f"music/{name}", Body=data)
    return f"{s3_url}/music"


def content(music: str) -> dict[str, bytes]:
    bucket = boto3.resource("s3").Bucket(music.split("/")[2])
    return {it.key.removeprefix("music/"): it.get()["Body"].read() for it in bucket.objects.all()}


def test_a_bucket_is_tagged_and_undone(music, tmp_path, s3_url, config):
    before = content(music)
    run = open_run(f"{s3_url}/runs", {"write": True})
    batches = list(iter_batches(stream_audio(music), target_size=2))
    parts = [batch_name(batch) for batch in batches]
    for batch in batches:
        plan_batch(batch, run=run, inference_url=f"{s3_url}/inference", config=config)
    run.complete_plan(parts)
    settings = WriteSettings()
    statistics = write_parts(
        parts, run=run, settings=settings, copy_to=None, inference_url=f"{s3_url}/inference"
    )
    assert dict(statistics.statuses) == {"written": 3, "skipped": 1, "rejected": 1}
    done = {row["track_id"]: row for table in run.tables("done", parts) for row in table_rows(table)}
    assert done["a::b.mp3"]["reason"] == "name-breaks-url"
    assert done["page.mp3"]["status"] == "rejected"
    for name, data in before.items():
        if done.get(name, {"status": ""})["status"] != "written":
            assert content(music)[name] == data
            continue
        (tmp_path / "now.mp3").write_bytes(content(music)[name])
        assert read_genres(tmp_path / "now.mp3") == done[name]["genres"]
        assert audio_hash(tmp_path / "now.mp3") == audio_hash(Path(DEMO / name))
    journalled = [part for part in parts if read_journal(run.journal_url, part)]
    back = open_run(f"{s3_url}/runs", {"undo": run.name})
    statistics = undo_parts(
        journalled, run=back, target=run, settings=settings, even_changed=False, dry_run=False
    )
    assert dict(statistics.statuses) == {"restored": 3}
    assert {name: data for name, data in content(music).items() if name in before} == before


def test_objects_that_were_written_are_not_predicted_again(music, s3_url, config):
    for attempt in ("first", "second"):
        run = open_run(f"{s3_url}/runs", {"attempt": attempt})
        (batch,) = iter_batches(stream_audio(music), target_size=5_000)
        part = batch_name(batch)
        plan_batch(batch, run=run, inference_url=f"{s3_url}/inference", config=config)
        rows = table_rows(run.read_part("plan", part))
        assert sum(row["status"] == ("change" if attempt == "first" else "kept") for row in rows) == 3
        run.complete_plan([part])
        write_parts(
            [part], run=run, settings=WriteSettings(), copy_to=None, inference_url=f"{s3_url}/inference"
        )
