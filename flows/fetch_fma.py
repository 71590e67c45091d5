"""Download FMA and make a first model of it: build, train, evaluate. Rerun it to resume it."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.model_stages.choice import choice_share
from flows.recording import recorded, run_flow
from flows.reporting.progress import print_status, showing_progress
from flows.settings import BuildSettings, FmaSettings, TrainModelSettings
from preprocessing.build.speed import measure_build_speed
from preprocessing.catalogue.fma_archives import ARCHIVES, METADATA, METADATA_SHA1, FmaArchive
from preprocessing.catalogue.settings import CatalogueSettings
from store.errors import BadInput
from store.fs.download import arrived_bytes, download, is_verified, remote_size
from store.fs.files import join, local_path
from training.networks.speed import measure_crops_per_s

GIB = 1 << 30
MEASURE_S = 2.0
TRAINING_SHARE = 0.8  # of FMA's tracks


@dataclass(frozen=True)
class Cost:
    """What a build and a training cost, roughly."""

    store_bytes: int
    build_hours: float
    train_hours: float

    def line(self) -> str:
        """Return the cost as a line for a person."""
        return (
            f"then about {self.store_bytes / GIB:.1f} GiB for spectrograms, {_duration(self.build_hours)} to build "
            f"them and {_duration(self.train_hours)} to train, as measured here in {MEASURE_S:g} s each"
        )


def estimate_cost(archive: FmaArchive, build: BuildSettings, train: TrainModelSettings) -> Cost:
    """Build and train a few tracks; return what an archive costs on all cores of this machine."""
    mel, training, cores = build.spectrogram.mel, train.training, os.cpu_count() or 1
    frames, audio_s = mel.count_frames(archive.hours * 3600), archive.hours * 3600
    build_s = audio_s / measure_build_speed(mel, seconds=MEASURE_S) / cores
    crops = archive.tracks * TRAINING_SHARE * training.crops_per_track * training.epochs
    crops *= 1 + choice_share(training)
    crop_frames = mel.count_frames(training.crop_s)
    crops_per_s = measure_crops_per_s(
        training.model, training.micro_batch_size, crop_frames, mel.bands, seconds=MEASURE_S
    )
    value_bytes = np.dtype(build.spectrogram.encoding).itemsize
    return Cost(frames * mel.bands * value_bytes, build_s / 3600, crops / crops_per_s / cores / 3600)


def fetch_fma(settings: FmaSettings) -> list[str]:
    """Download the archives; build and train if asked to; return the lines of the summary.

    Raises: BadInput if the folder is not a local one, its disk too small, or an archive not as published;
        ServiceUnavailable if the server does not respond.
    """
    folder, archive = local_path(settings.folder), ARCHIVES[settings.subset]
    if folder is None:
        raise BadInput(f"{settings.folder}: not a folder of this machine; name one with --folder")
    wanted = {METADATA: METADATA_SHA1, archive.name: archive.sha1}
    missing = {name: sha1 for name, sha1 in wanted.items() if not is_verified(folder / name, sha1)}
    sizes = {name: remote_size(join(settings.mirror, name)) for name in missing}
    build = BuildSettings(
        source=str(folder), store=settings.store, catalogue=CatalogueSettings(subset=settings.subset)
    )
    train = TrainModelSettings(store=settings.store, models=settings.models)
    _announce(settings, folder, sizes, estimate_cost(archive, build, train) if settings.then_train else None)
    for name, sha1 in missing.items():
        with showing_progress(name, sizes[name], "bytes") as advance:
            advance(arrived_bytes(folder / name), "")
            download(
                join(settings.mirror, name), folder / name, sha1=sha1, advance=lambda it: advance(it, "")
            )
    here = f"{folder}: {METADATA} and {archive.name} are here, with the SHA-1 that their publisher states"
    if not settings.then_train:
        return [here, f"next: spectrogram-one build {settings.folder}, then spectrogram-one train"]
    with recorded():
        built = run_flow("build_dataset", build)
        return [here, *built.lines(), *run_flow("train_model", train).lines()]


def _announce(settings: FmaSettings, folder: Path, sizes: Mapping[str, int], cost: Cost | None) -> None:
    """Print what is about to be used. Raises: BadInput if the disk is too small for the download and the store."""
    left = sum(max(size - arrived_bytes(folder / name), 0) for name, size in sizes.items())
    print_status(f"download: {left / GIB:.1f} GiB into {folder}, from {settings.mirror}")
    needed = left
    if cost is not None:
        print_status(cost.line())
        needed += cost.store_bytes if local_path(settings.store) is not None else 0
    existing = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise BadInput(
            f"{folder}: {needed / GIB:.1f} GiB are needed, {free / GIB:.1f} GiB are free; make space, choose another "
            "--folder, or a smaller subset"
        )


def _duration(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.0f} h"
