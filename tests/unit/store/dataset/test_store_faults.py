"""Disks and servers that fail: what helps is said, what can be is tried again, and nothing published is lost."""

import errno
import json
from contextlib import suppress

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from preprocessing.mel.settings import MelSettings
from store.dataset.object_ranges import BLOCK_FRAMES
from store.dataset.snapshot_tags import put_tag, read_tags
from store.dataset.snapshots import (
    kept_snapshots,
    latest_snapshot,
    publish,
    put_catalogue,
    read_snapshot_file,
    snapshot_url,
)
from store.dataset.sweep import sweep
from store.dataset.verification import verify
from store.errors import BadInput, CommitConflict
from store.fs.block_cache import BlockCache
from store.fs.files import exists, join, list_names, put_if_absent, read_bytes, remove, write_atomic
from store.fs.parquet import read_table
from store.reader import Snapshot, open_snapshot
from tests.support.disk_faults import faults
from tests.support.faulty_proxy import flaky_proxy
from tests.support.small_shards import store_shard
from tests.support.snapshots import index_of, publish_mels
from tests.unit.store.dataset.test_sweep import RECIPE


def publish_shard(root, number):
    shard = store_shard(root, f"shard {number}", (f"track {number}",))
    return publish(
        root,
        parent=latest_snapshot(root),
        shards=[shard],
        index=index_of(shard),
        catalogue=put_catalogue(root, pa.table({"track_id": [f"track {it}" for it in range(number + 1)]})),
        recipe=RECIPE,
        settings={},
    )


def verify_latest(root):
    return verify(Snapshot(root, latest_snapshot(root)), threads=2)


@pytest.fixture
def through(s3_endpoint, monkeypatch):
    """Return `through(proxy)`: from then on requests go through it, with short time-outs and pauses."""
    s3 = fsspec.get_filesystem_class("s3")

    def go(url):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setattr("botocore.retryhandler.delay_exponential", lambda **_: 0.0)
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.5}})
        s3.clear_instance_cache()

    yield go
    s3.clear_instance_cache()


@pytest.mark.parametrize(
    ("in_turn", "every"), [(["response", "500", "request", "503", "response"], 4), (["slow"], 37)]
)
def test_a_server_that_fails_now_and_then_is_asked_again(s3_url, s3_endpoint, through, in_turn, every):
    """Commits whose response was lost are recognised as made; sweeps, tags and reads go on, too."""
    root = f"{s3_url}/store"
    with flaky_proxy(s3_endpoint, faults=in_turn, every=every, delay_s=1.0) as (url, failed):
        through(url)
        for number in range(2):
            assert publish_shard(root, number).number == number
        put_tag(root, "paper", 0)
        store_shard(root, "not published", ("x",))
        sweep(root, grace_s=0, keep_snapshots=1, is_dry_run=False)
        assert verify_latest(root).damages == ()
    assert failed
    assert [it.number for it in kept_snapshots(root)] == [2, 1, 0]
    assert read_tags(root) == {"paper": 0}
    assert "not published" not in list_names(join(root, "shards"))


def test_crops_come_through_a_cache_from_a_server_that_fails_now_and_then(
    s3_url, s3_endpoint, through, tmp_path
):
    """A block that was cached is not requested any more: then the server may fail for good."""
    mels = {f"{it}": np.full((BLOCK_FRAMES, 8), it, np.float32) for it in range(6)}
    catalogue = pa.table({"track_id": list(mels)})
    snapshot = publish_mels(f"{s3_url}/store", mels, catalogue, MelSettings(bands=8))
    locations = snapshot.locate(catalogue["track_id"])
    reader = snapshot.reader_with(BlockCache(str(tmp_path), 10**6))

    def first_values():
        out_BFM = np.empty((6, 50, 8), np.float16)
        reader.read_crops(locations, np.arange(6), np.arange(6), out_BFM)
        return out_BFM[:, 0, 0].tolist()

    faults_in_turn = ["500", "slow", "503", "response"]
    with flaky_proxy(s3_endpoint, faults=faults_in_turn, every=2, delay_s=1.0) as (url, failed):
        through(url)
        assert first_values() == list(range(6))
    assert {it.split()[1] for it in failed} == set(faults_in_turn)
    with flaky_proxy(s3_endpoint, faults=["503"], every=1) as (url, failed):
        through(url)
        assert first_values() == list(range(6))
    assert failed == []


def test_a_server_that_goes_on_failing_is_named(s3_url, s3_endpoint, through):
    root = f"{s3_url}/store"
    publish_shard(root, 0)
    with flaky_proxy(s3_endpoint, faults=["503"], every=1) as (url, _):
        through(url)
        with pytest.raises(OSError, match=f"^{root}/snapshots.*: the server responds 503"):
            latest_snapshot(root)
    through(s3_endpoint)
    assert verify_latest(root).damages == ()


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_a_conditional_put_that_is_refused_in_other_words(s3_url, monkeypatch, code):
    """Servers of the protocol need not name the condition; and a put that is under way gives 409: try again."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    fs, path = fsspec.url_to_fs(f"{s3_url}/one")
    plain, refusals = fs.pipe_file, []

    def refuse(*args, **kwargs):
        if refusals:
            return plain(*args, **kwargs)
        refusals.append(code)
        raise translate_boto_error(ClientError({"Error": {"Code": code}}, "PutObject"))

    monkeypatch.setattr(fs, "pipe_file", refuse)
    if code == "PreconditionFailed":
        with pytest.raises(FileExistsError):
            put_if_absent(f"{s3_url}/one", b"1")
    else:
        put_if_absent(f"{s3_url}/one", b"1")
        assert fs.cat_file(path) == b"1"
    assert refusals == [code]


def test_a_read_only_disk_is_named(tmp_path):
    publish_shard(str(tmp_path), 0)
    with faults(1, errno.EROFS), pytest.raises(OSError, match="Read-only file system"):
        publish_shard(str(tmp_path), 1)
    assert verify_latest(str(tmp_path)).damages == ()


def test_a_disk_that_is_full_at_any_call_of_a_commit_loses_nothing(tmp_path):
    root = str(tmp_path / "store")
    publish_shard(root, 0)
    for at in range(1, 200, 3):
        with faults(at, errno.ENOSPC) as met, suppress(OSError):
            publish_shard(root, 1)
        if met.failed is None:
            break
        latest = latest_snapshot(root)
        assert all(exists(join(root, name)) for name in (latest.catalogue, *latest.index, *latest.files))
        if latest.number == 1:  # the failure came after the commit
            remove(snapshot_url(root, 1))
    assert latest_snapshot(root).number == 1, "tried again on a disk with room, it is made"
    assert verify_latest(root).damages == ()


def test_reading_needs_no_writable_disk(tmp_path, monkeypatch):
    root = str(tmp_path)
    publish_shard(root, 0)
    with faults() as met:
        verify_latest(root)
        read_tags(root)
        list(kept_snapshots(root))
    assert set(met.calls) <= {"open"}, "and these open to read"


def test_of_two_builders_at_once_one_must_read_again(tmp_path):
    root = str(tmp_path)
    parent = publish_shard(root, 0)
    publish_shard(root, 1)
    shard = store_shard(root, "late", ("late",))
    with pytest.raises(CommitConflict, match=r"00000001.json: another run published first; run again"):
        publish(
            root,
            parent=parent,
            shards=[shard],
            index=index_of(shard),
            catalogue=parent.catalogue,
            recipe=RECIPE,
            settings={},
        )
    assert verify_latest(root).damages == ()


def test_a_newer_format_is_named(tmp_path):
    root = str(tmp_path)
    publish_shard(root, 0)
    url = snapshot_url(root, 0)
    write_atomic(url, json.dumps({**json.loads(read_bytes(url)), "format": 2}).encode())
    with pytest.raises(BadInput, match=r"format 2, written by a newer version .* install that version"):
        open_snapshot(root)


def test_any_flipped_byte_of_a_snapshot_file_is_found(tmp_path):
    root = str(tmp_path)
    publish_shard(root, 0)
    url = snapshot_url(root, 0)
    content = read_bytes(url)
    file = read_snapshot_file(url)
    for at in range(0, len(content), 7):
        write_atomic(url, content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            assert read_snapshot_file(url) == file, "only white space differs"
        except BadInput:
            continue


@pytest.mark.parametrize("folder", ["catalogues", "index", "files"])
def test_a_damaged_table_is_named_by_verify_and_refused_by_readers(tmp_path, folder):
    root = str(tmp_path)
    publish_shard(root, 0)
    name = f"{folder}/{list_names(join(root, folder))[0]}"
    content = read_bytes(join(root, name))
    for at in np.linspace(0, len(content) - 1, 20).astype(int).tolist():
        write_atomic(join(root, name), content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        assert verify_latest(root).tables == [name]
    write_atomic(join(root, name), content[:-30])
    with pytest.raises(BadInput, match=r"this Parquet file is damaged"):
        read_table(join(root, name))
    remove(join(root, name))
    assert [it.problem for it in verify_latest(root).damages] == ["missing"]
