"""A small training run on a real store: two genres that differ in which half of the bands is loud."""

import json
import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import safetensors.torch
from torch import Tensor

from preprocessing.catalogue.sources import CATALOGUE_SCHEMA
from preprocessing.mel.settings import MelSettings
from store.reader import Snapshot
from tests.support.snapshots import publish_mels
from training.fit.run import TrainingRun, write_run
from training.fit.settings import AugmentSettings, TrainSettings
from training.networks.settings import ModelSettings

MEL = MelSettings(sample_rate_hz=8_000, window=256, hop=256, bands=8)
SETTINGS = TrainSettings(
    crop_s=0.5,
    crops_per_track=8,
    batch_size=16,
    micro_batch_size=8,
    epochs=4,
    learning_rate=0.003,
    validation_crops=3,
    stall_timeout_s=60,
    # On so small a data set the deeper network amplifies float32 rounding until no two runs compare.
    model=ModelSettings(name="shallow", width=8, dropout=0.2),
    augment=AugmentSettings(mixup=0.3),
)


def publish_toy(root: str, *, not_finite: Sequence[str] = ()) -> Snapshot:
    """Publish twelve tracks; the spectrograms of `not_finite` are NaN."""
    random = np.random.default_rng(7)
    mels = {}
    for number in range(12):
        mel_FM = random.normal(-30, 6, (30 + 5 * number, MEL.bands)).astype(np.float32)
        mel_FM[:, :4] += 20 * (number % 2)
        mels[f"{number:02d}"] = mel_FM
    for track_id in not_finite:
        mels[track_id][:] = np.nan
    return publish_mels(root, mels, pa.table({"track_id": list(mels)}), MEL)


def publish_toy_artists(
    root: str, splits: Sequence[str] = ("training", "training", "validation", "test"), mel: MelSettings = MEL
) -> str:
    """Publish two genres by an artist in each of some splits, two tracks an artist; return the store's URL."""
    random = np.random.default_rng(7)
    tracks, mels = [], {}
    for number in range(4 * len(splits)):
        track_id, genre, artist = f"{number:02d}", ("high", "low")[number % 2], number // 2 % len(splits)
        mel_FM = random.normal(-30, 6, (40 + number, mel.bands)).astype(np.float32)
        mel_FM[:, : mel.bands // 2] += 20 * (number % 2)
        mels[track_id] = mel_FM
        about = {
            "artist": f"{genre} {artist}",
            "split": splits[artist],
        }
        tracks.append({"track_id": track_id, "genre_top": genre, "genres": [genre], **about})
    publish_mels(root, mels, pa.Table.from_pylist(tracks, schema=CATALOGUE_SCHEMA), mel)
    return root


def write_toy_run(
    folder: Path, snapshot: Snapshot, settings: TrainSettings = SETTINGS, pretrained: bytes | None = None
) -> Path:
    """Write the run; return its folder."""
    targets = [[number % 2, 1 - number % 2] for number in range(12)]
    table = pa.table(
        {
            "track_id": snapshot.track_ids,
            "split": ["training"] * 7 + ["validation"] * 3 + ["test"] * 2,
            "target": pa.array(targets, pa.list_(pa.int8())),
        }
    )
    run = TrainingRun(
        snapshot_url=snapshot.url,
        mel_fingerprint=MEL.settings_hash,
        genres=("low", "high"),
        pretrained_sha256=sha256(pretrained).hexdigest() if pretrained else "",
        settings=settings,
    )
    write_run(str(folder), run, table, pretrained)
    return folder


def weights_of(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = safetensors.torch.load((folder / "weights.safetensors").read_bytes())
    return weights


def losses_of(folder: Path, name: str) -> list[float]:
    return [row[name] for row in json.loads((folder / "history.json").read_text())["epochs"]]


def gradient_tolerance(steps: int, settings: TrainSettings = SETTINGS) -> float:
    """Return how far the gradients of two trainings may differ by rounding alone, relative to their norm.

    Rounding moves a sum by 1e-7, but a ReLU or a maximum close to a tie then falls to the other side,
    and the gradient loses one of its terms: one for each crop and feature. One such flip in each step,
    of random sign, adds up to the square root of the steps.
    """
    features = 2 * 4 * settings.model.width  # of the shallow network: mean and maximum of its channels
    return math.sqrt(steps) / (settings.batch_size * features)


def loss_tolerance(steps: int, settings: TrainSettings = SETTINGS) -> float:
    """Return how far the losses of two trainings may differ by rounding alone, relative to the loss.

    A difference in the gradients changes the loss in proportion to how far training moves it: in the
    toy by a quarter. A real fault is larger: an optimizer state that is lost half way changes the loss by
    0.4 %, other random numbers in a single step by 4 %.
    """
    return gradient_tolerance(steps, settings) / 4
