"""Builds of real music that are disturbed, or fed from elsewhere, end in the same store; poison costs one file."""

import os
import random
import shutil
import signal
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from flows.build_dataset import build_dataset
from flows.cluster.settings import ClusterSettings
from flows.settings import BuildSettings
from preprocessing.catalogue.settings import CatalogueSettings, SplitSettings
from preprocessing.decode.settings import LimitSettings
from store.dataset.verification import verify
from store.errors import BadInput
from store.reader import open_snapshot
from tests.support.audio_formats import encode
from tests.support.crashing_decoder import CRASH_KINDS, install_crashing_decoder, write_crashing_mp3

MUSIC = Path("tests/data/demo_music")
TRACKS = MUSIC / "fma_small" / "200"
CLUSTER = ClusterSettings(workers=2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The demo music's store, built in peace."""
    store = f"{tmp_path_factory.mktemp('undisturbed')}/store"
    build_dataset(BuildSettings(source=str(MUSIC), store=store, cluster=CLUSTER))
    return open_snapshot(store)


def assert_same_store(one, other):
    assert one.track_ids == other.track_ids
    for track_id in one.track_ids:
        np.testing.assert_array_equal(one.mel(track_id), other.mel(track_id))
    columns = [
        "track_id",
        "status",
        "reason",
        "detail",
        "frames",
        "decoded_s",
        "stated_s",
        "sha256",
        "fingerprint",
    ]
    assert one.tracks.select(columns).equals(other.tracks.select(columns))


def workers():
    """The Dask worker processes that this process has started and that live."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # it may end, or just have been killed
            if "spawn_main" in " ".join(process.cmdline()[-2:]):
                found.append(process)
    return found


def kill_workers(store, seed, count, kills, over):
    """Kill a worker each time so many shards more are there, a moment later; seeded."""
    chance = random.Random(seed)
    moments = sorted(chance.choices(range(25), k=count))  # early: the build must not be over before the last
    for moment in moments:
        while len(list(store.glob("shards/2*"))) < moment and not over.is_set():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        while not (there := workers()) and not over.is_set():
            time.sleep(0.01)
        if over.is_set():
            return
        os.kill(chance.choice(there).pid, signal.SIGKILL)
        kills.append(moment)


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(1_200)])])
def test_killed_workers_leave_the_store_as_if_nothing_had_been(undisturbed, tmp_path, count):
    kills, over = [], threading.Event()
    killer = threading.Thread(target=kill_workers, args=(tmp_path / "store", 0, count, kills, over))
    killer.start()
    settings = BuildSettings(
        source=str(MUSIC),
        store=f"{tmp_path}/store",
        cluster=CLUSTER,
        tracks_per_batch=1,
        batches_per_commit=5,
    )
    try:
        build_dataset(settings)
    finally:
        over.set()
        killer.join()
    assert len(kills) == count
    assert_same_store(undisturbed, open_snapshot(settings.store))


def test_files_that_crash_hang_or_exhaust_memory_cost_themselves_only(tmp_path, monkeypatch):
    source = tmp_path / "music"
    source.mkdir()
    for number in range(1, 7):
        shutil.copy(TRACKS / f"20000{number}.mp3", source)
    for poison in CRASH_KINDS:
        write_crashing_mp3(source, poison)
    monkeypatch.setenv("PYTHONPATH", install_crashing_decoder(tmp_path))
    summary = build_dataset(
        BuildSettings(
            source=str(source),
            store=f"{tmp_path}/store",
            limits=LimitSettings(timeout_s=10.0, timeout_s_per_mb=0.0, memory_gib=0.25),
            max_reject_share=0.5,
            cluster=CLUSTER,
        )
    )
    assert summary.tracks == 6
    assert {Path(it["url"]).stem: it["reason"] for it in summary.rejects} == {
        "segfault": "decoder-killed",
        "sleep": "decoder-hung",
        "allocate": "decoder-out-of-memory",
    }
    assert any("--retry-rejects" in line for line in summary.lines())
    assert "all files of the source (9): 6 with a spectrogram, 3 rejected" in summary.lines()


def upload(folder, url):
    import fsspec

    fs, root = fsspec.url_to_fs(url)
    fs.put(f"{folder}/", f"{root}/", recursive=True)


def test_the_same_build_from_and_to_an_object_store_gives_the_same_arrays(undisturbed, s3_url):
    upload(MUSIC, f"{s3_url}/music")
    settings = BuildSettings(source=f"{s3_url}/music", store=f"{s3_url}/store", cluster=CLUSTER)
    summary = build_dataset(settings)
    assert_same_store(undisturbed, open_snapshot(settings.store))
    assert set(open_snapshot(settings.store).tracks["signature"].is_valid().to_pylist()) == {True}
    assert build_dataset(settings).processed == 0
    assert summary.report.startswith("s3://")


def test_the_published_archives_are_read_in_place(undisturbed, tmp_path):
    source = tmp_path / "fma"
    source.mkdir()
    for folder in ("fma_small", "fma_metadata"):
        with zipfile.ZipFile(source / f"{folder}.zip", "w") as archive:
            for path in sorted(it for it in (MUSIC / folder).rglob("*") if it.is_file()):
                archive.write(path, path.relative_to(MUSIC))
    settings = BuildSettings(source=str(source), store=f"{tmp_path}/store", cluster=CLUSTER)
    build_dataset(settings)
    assert_same_store(undisturbed, open_snapshot(settings.store))
    assert sorted(it.name for it in source.iterdir()) == ["fma_metadata.zip", "fma_small.zip"]


@pytest.fixture
def collection(tmp_path):
    """Twelve files in two folders."""
    source = tmp_path / "music"
    for number in range(1, 13):
        genre = "rock" if number % 2 else "jazz"
        (source / genre).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TRACKS / f"2000{number:02d}.mp3", source / genre / f"{number:02d}.mp3")
    return source


def settings_for(source, **more):
    shares = SplitSettings(mode="artist", validation_share=0.2, test_share=0.2)
    return BuildSettings(
        source=str(source),
        store=f"{source.parent}/store",
        cluster=CLUSTER,
        catalogue=CatalogueSettings(kind="flat", split=shares),
        **more,
    )


def test_copies_are_found_whatever_their_format_and_share_a_split(collection):
    shutil.copyfile(collection / "rock/01.mp3", collection / "rock/the same.mp3")
    encode(collection / "jazz/encoded again.ogg", "vorbis", 22_050, "ogg", 60.0)  # of 200001
    summary = build_dataset(settings_for(collection))
    assert summary.duplicates == 3
    rows = {row["track_id"]: row for row in open_snapshot(f"{collection.parent}/store").tracks.to_pylist()}
    copies = [rows[it] for it in ("rock/01.mp3", "rock/the same.mp3", "jazz/encoded again.ogg")]
    assert {row["duplicate_group"] for row in copies} == {"jazz/encoded again.ogg"}
    assert len({row["split"] for row in copies}) == 1
    assert sum(row["duplicate_group"] is not None for row in rows.values()) == 3
    reported = pq.read_table(summary.report).to_pylist()
    assert [row["track_id"] for row in reported] == sorted(row["track_id"] for row in copies)


def test_an_interrupted_build_lets_no_known_copy_cross_a_split(collection, monkeypatch):
    for number in range(1, 9):  # the same files again, under other names
        shutil.copyfile(TRACKS / f"2000{number:02d}.mp3", collection / f"copy {number}.mp3")
    settings = settings_for(collection)
    build_dataset(settings)
    shutil.copyfile(TRACKS / "200030.mp3", collection / "new.mp3")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.build_dataset.publish_splits", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(settings)
    tracks = open_snapshot(settings.store).tracks
    assert "new.mp3" in tracks["track_id"].to_pylist()
    splits = {}
    for group, split in zip(*(tracks[it].to_pylist() for it in ("duplicate_group", "split")), strict=True):
        splits.setdefault(group, set()).add(split)
    del splits[None]
    assert len(splits) == 8
    assert all(len(it) == 1 for it in splits.values())


def test_a_catalogue_without_its_files_is_refused_before_anything_is_decoded(tmp_path):
    source = tmp_path / "fma"
    shutil.copytree(MUSIC / "fma_metadata", source / "fma_metadata")
    (source / "fma_small" / "200").mkdir(parents=True)
    for number in range(1, 10):
        shutil.copy(TRACKS / f"20000{number}.mp3", source / "fma_small" / "200")
    with pytest.raises(BadInput, match="42 of 51 tracks have no file; at most 10% may be rejected"):
        build_dataset(BuildSettings(source=str(source), store=f"{tmp_path}/store", cluster=CLUSTER))
    assert not (tmp_path / "store").exists()


def test_files_that_came_changed_or_went_are_built_rebuilt_or_dropped(collection):
    settings = settings_for(collection)
    assert build_dataset(settings).tracks == 12
    before = open_snapshot(settings.store)
    (collection / "rock/01.mp3").unlink()
    shutil.copyfile(TRACKS / "200020.mp3", collection / "rock/20.mp3")
    other = (TRACKS / "200021.mp3").read_bytes()
    size = (collection / "rock/03.mp3").stat().st_size
    (collection / "rock/03.mp3").write_bytes(other[:size].ljust(size, b"\0"))  # as long as before
    summary = build_dataset(settings)
    after = open_snapshot(settings.store)
    assert (summary.processed, summary.tracks) == (2, 12)
    assert set(before.track_ids) - set(after.track_ids) == {"rock/01.mp3"}
    assert set(after.track_ids) - set(before.track_ids) == {"rock/20.mp3"}
    assert after.mel("rock/03.mp3").mean() != before.mel("rock/03.mp3").mean()
    assert open_snapshot(before.url).mel("rock/01.mp3").shape[1] == 128, "the old snapshot still has it"


def test_a_repair_builds_just_the_tracks_that_are_damaged(collection):
    settings = settings_for(collection.parent / "growing")
    for folder in ("rock", "jazz"):  # two builds, so two shards
        shutil.copytree(collection / folder, collection.parent / "growing" / folder)
        build_dataset(settings)
    snapshot = open_snapshot(settings.store)
    mels = {it: snapshot.mel(it) for it in snapshot.track_ids}
    flipped, lost = sorted(Path(settings.store).glob("shards/2*"))
    path = flipped / "c/0/0"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    shutil.rmtree(lost)
    damaged = verify(snapshot).tracks
    assert 7 <= len(damaged) <= 8, "a shard of six tracks, and those that share a chunk"
    summary = build_dataset(settings.model_copy(update={"repair": True}))
    assert (summary.repaired, summary.processed, summary.tracks) == (len(damaged), len(damaged), 12)
    assert f"{len(damaged)} tracks had damaged or lost spectrograms and were built again" in summary.lines()
    after = open_snapshot(settings.store)
    assert after.file.kind == "repair"
    assert verify(after).tracks == []
    for track_id, mel_FM in mels.items():
        np.testing.assert_array_equal(after.mel(track_id), mel_FM)


def test_a_change_that_leaves_size_and_time_alone_is_seen_by_hash(collection):
    build_dataset(settings_for(collection))
    path = collection / "jazz/02.mp3"
    was, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert build_dataset(settings_for(collection)).processed == 0
    assert build_dataset(settings_for(collection, change_detection="sha256")).processed == 1
    assert build_dataset(settings_for(collection, change_detection="sha256")).processed == 0


def test_a_file_that_its_publisher_has_otherwise_is_rejected(tmp_path):
    source = tmp_path / "fma"
    shutil.copytree(MUSIC, source)
    sums = "".join(f"{'0' * 40}  200/2000{number:02d}.mp3\n" for number in (1, 2))
    (source / "fma_small" / "checksums").write_text(sums)
    settings = BuildSettings(
        source=str(source),
        store=f"{tmp_path}/store",
        catalogue=CatalogueSettings(verify_checksums=True),
        cluster=CLUSTER,
    )
    summary = build_dataset(settings)
    assert summary.reasons == {"checksum": 2, "empty": 1, "not-audio": 1, "truncated": 1}
