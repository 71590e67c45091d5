"""A process that tags a bucket is killed while it puts: every object is whole, and the batch is completed."""

import json
import os
import signal
import subprocess
import sys

import boto3
import pytest

from store.fs.listing import stream_files
from store.tagging.batch import WriteSettings, apply_batch, undo_batch
from store.tagging.swap.journal import read_journal
from store.tags.write import write_genres
from tests.support.audio_formats import CODECS, encode
from tests.support.faulty_proxy import dropping_proxy

SETTINGS = WriteSettings()
TAG = """
import json, sys
from store.tagging.batch import WriteSettings, apply_batch
apply_batch(json.load(sys.stdin), settings=WriteSettings(), journal_url=sys.argv[1], name="1")
"""


def content(music: str) -> dict[str, bytes]:
    bucket = boto3.resource("s3").Bucket(music.split("/")[2])
    return {it.key: it.get()["Body"].read() for it in bucket.objects.all()}


@pytest.fixture
def music(s3_url, tmp_path):
    for suffix, (codec, rate, container) in CODECS.items():
        path = tmp_path / f"music{suffix}"
        encode(path, codec, rate, container, seconds=0.2)
        write_genres(path, ["Noise"])
        bucket = s3_url.removeprefix("s3://")
        boto3.client("s3").put_object(Bucket=bucket, Key=path.name, Body=path.read_bytes())
    return s3_url


def rows_of(music: str) -> list[dict]:
    asked = {"status": "change", "genres": ["Folk"], "custom_tags": {}}
    return [
        {"track_id": file.path, "url": file.url, "signature": file.signature, **asked}
        for file in stream_files(music)
    ]


@pytest.mark.parametrize("lost", ["request", "response"])
@pytest.mark.parametrize("after", [0, 5])
def test_a_killed_batch_is_completed(music, tmp_path, s3_endpoint, lost, after):
    """The kill comes when one object's put is on its way: before the store has it, or when it has."""
    journal, rows, old = str(tmp_path / "journal"), rows_of(music), content(music)
    kill = lambda: os.kill(child.pid, signal.SIGKILL)  # noqa: E731
    with dropping_proxy(s3_endpoint, lost=lost, method="PUT", times=99, after=after, then=kill) as proxy:
        child = subprocess.Popen(
            [sys.executable, "-c", TAG, journal],
            stdin=subprocess.PIPE,
            env={**os.environ, "AWS_ENDPOINT_URL": proxy, "PYTHONPATH": os.getcwd()},
        )
        child.communicate(json.dumps(rows).encode(), timeout=120)
    assert child.returncode == -signal.SIGKILL
    left = content(music)
    assert {row["track_id"] for row in read_journal(journal, "1")} == set(old)
    changed = [name for name in old if left[name] != old[name]]
    assert len(changed) >= (lost == "response")
    done = apply_batch(rows, settings=SETTINGS, journal_url=journal, name="1")
    assert {row["status"] for row in done} == {"written"}
    new = content(music)
    assert all(left[name] in (old[name], new[name]) for name in old)
    assert all(left[name] == new[name] for name in changed)
    back = undo_batch(
        read_journal(journal, "1"),
        settings=SETTINGS,
        journal_url=f"{journal}-undo",
        name="1",
        even_changed=False,
        dry_run=False,
    )
    assert {row["status"] for row in back} == {"restored"}
    assert content(music) == old
