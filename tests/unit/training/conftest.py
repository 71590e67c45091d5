"""A toy: two genres that differ in which half of the bands is loud, and a snapshot of them in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from store.dataset.frame_reader import Locations
from tests.support.held_frames import HeldFrames, locations_of
from training.fit.run import TrainingRun
from training.fit.settings import AugmentSettings, TrainSettings
from training.networks.settings import ModelSettings

MEL = MelSettings(sample_rate_hz=8_000, window=256, hop=256, bands=8)


@dataclass(frozen=True)
class HeldSnapshot:
    """The part of a snapshot that training uses, over plain arrays."""

    mels: dict[str, NDArray[np.float32]]
    url: str = "held in memory"
    mel_fingerprint: str = MEL.settings_hash

    @property
    def mel_settings(self) -> dict[str, Any]:
        return MEL.model_dump()

    @property
    def reader(self) -> HeldFrames:
        return HeldFrames(self.mels)

    def locate(self, track_ids: pa.ChunkedArray) -> Locations:
        ids = track_ids.to_pylist()
        return locations_of([len(self.mels.get(track_id, ())) for track_id in ids], ids)


@dataclass(frozen=True)
class Toy:
    """A run, its tracks and its spectrograms."""

    run: TrainingRun
    tracks: pa.Table
    snapshot: HeldSnapshot


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def toy() -> Callable[..., Toy]:
    """Return a function that makes a toy run; keyword arguments are its settings."""

    def make(**settings: Any) -> Toy:
        random = np.random.default_rng(7)
        ids = [f"{number:02d}" for number in range(12)]
        mels = {}
        for number, track_id in enumerate(ids):
            mel_FM = random.normal(-30, 6, (20 + 5 * number, MEL.bands)).astype(np.float32)
            mel_FM[:, :4] += 30 * (number % 2)
            mels[track_id] = mel_FM
        tracks = pa.table(
            {
                "track_id": ids,
                "split": ["training"] * 8 + ["validation"] * 4,
                "target": pa.array(
                    [[number % 2, 1 - number % 2] for number in range(12)], pa.list_(pa.int8())
                ),
            }
        )
        plain: dict[str, Any] = {
            "crop_s": 0.5,
            "crops_per_track": 4,
            "batch_size": 16,
            "micro_batch_size": 4,
            "epochs": 4,
            "learning_rate": 0.01,
            "validation_crops": 3,
            "model": ModelSettings(width=4, dropout=0.2),
            "augment": AugmentSettings(mixup=0.3),
        }
        run = TrainingRun(
            snapshot_url="held in memory",
            mel_fingerprint=MEL.settings_hash,
            genres=("high", "low"),
            settings=TrainSettings(**{**plain, **settings}),
        )
        return Toy(run, tracks, HeldSnapshot(mels))

    return make
