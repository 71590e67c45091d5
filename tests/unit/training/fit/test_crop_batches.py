from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from preprocessing.catalogue.sources import CATALOGUE_SCHEMA
from store.errors import BadInput
from tests.support.snapshots import publish_mels
from tests.support.toy_training import MEL, publish_toy_artists
from training.fit.crop_batches import CropBatches
from training.loading.readers import ReadingPlan


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return publish_toy_artists(str(tmp_path_factory.mktemp("batches") / "store"))


def batches(store, **settings):
    return CropBatches(store, **{"crop_s": 0.5, "batch_size": 12, "crops_per_track": 4, **settings})


def contents(batches):
    return [torch.cat([it.mel_BFM.flatten(1), it.target_BG], dim=1).clone() for it in batches]


def test_an_epoch_has_each_track_equally_often_and_the_next_one_others(store):
    some = batches(store, batch_size=8)
    first, second = contents(DataLoader(some, batch_size=None)), contents(DataLoader(some, batch_size=None))
    assert len(first) == len(second) == len(some) == 4
    assert sum(it[:, -2:].sum(0) for it in first).tolist() == [16, 16], "four tracks of each genre"
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_an_epoch_can_have_each_artist_equally_often(tmp_path):
    """The artists "high 0" and "high 1" have a track each here, "low 0" has all tracks of its genre."""
    tracks = [("high", "high 0"), ("high", "high 1"), *[("low", " Low  0")] * 4, ("low", "low 0")]
    mels = {f"{row}": np.zeros((60, MEL.bands), np.float32) for row in range(len(tracks))}
    rows = [
        {"track_id": f"{row}", "genre_top": genre, "genres": [genre], "artist": artist, "split": split}
        for row, ((genre, artist), split) in enumerate(
            zip(tracks, [*["training"] * 5, "validation", "test"], strict=True)
        )
    ]
    publish_mels(str(tmp_path), mels, pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA), MEL)
    epoch = contents(batches(str(tmp_path), balance="artist", batch_size=5, crops_per_track=3))
    assert sum(it[:, -2:].sum(0) for it in epoch).tolist() == [10, 5], "high has two artists, low one"


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_resumes_exactly_at_another_world_size(store, before, after):
    whole = contents(batches(store))
    stopped = [batches(store, rank=rank, world_size=before) for rank in range(before)]
    first = [contents(islice(it, 1)) for it in stopped]
    parts = [torch.cat(step) for step in zip(*first, strict=True)]
    resumed = [batches(store, rank=rank, world_size=after, threads=3) for rank in range(after)]
    for it in resumed:
        it.load_state_dict(stopped[0].state_dict())
    parts += [torch.cat(step) for step in zip(*map(contents, resumed), strict=True)]
    assert all(torch.equal(found, wanted) for found, wanted in zip(parts, whole, strict=True))


def test_runs_through_a_cache_have_the_same_crops_and_resume_exactly(store, tmp_path):
    reading = ReadingPlan("runs", 1, str(tmp_path / "cache"), 1.0)
    whole = contents(batches(store, reading=reading))
    assert any((tmp_path / "cache").iterdir())
    rows = [sorted(map(tuple, torch.cat(its).tolist())) for its in (whole, contents(batches(store)))]
    assert rows[0] == rows[1]
    resumed = [batches(store, rank=rank, world_size=2, reading=reading) for rank in range(2)]
    for it in resumed:
        it.load_state_dict({"epoch": 0, "batch": 1})
    parts = [torch.cat(step) for step in zip(*map(contents, resumed), strict=True)]
    assert all(torch.equal(found, wanted) for found, wanted in zip(parts, whole[1:], strict=True))


def test_worker_processes_are_refused(store, monkeypatch):
    monkeypatch.setattr("training.fit.crop_batches.get_worker_info", lambda: "of a worker")
    with pytest.raises(BadInput, match=r"reads in threads of its own; use DataLoader\(..., num_workers=0\)"):
        next(iter(batches(store)))
