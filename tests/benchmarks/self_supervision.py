"""Whether a trunk that is pre-trained without labels helps to predict the genres of artists of no training track.

python -m tests.benchmarks.self_supervision STORE UNLABELLED MINUTES [--trunk FILE] [--seeds 200 201 202 203 204]

STORE has the labelled tracks; UNLABELLED is a store, or one snapshot's .json, whose labels are not read. MINUTES are
of CPU, on one thread. Pre-training is contrastive: of all crops in a batch, the one from the same track is to be found.
The embedding of a track (mean and standard deviation over its crops) is a block of features, beside the six of the
feature machine and alone; the same of a trunk with random weights is the control. FILE keeps the trunk: with it, a
rerun does not train.

Source: SimCLR (Chen et al., 2020); on music, CLMR (Spijkervet and Burgoyne, 2021).

Axes: T tracks, B crops of a batch, F frames, M mel bands, D features, G genres.
"""

import argparse
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from preprocessing.catalogue.splits import group_tracks
from preprocessing.mel.settings import MelSettings
from store.reader import Snapshot, open_snapshot
from tests.benchmarks.genre_models import FOLDS, INNER_FOLDS, forced_choice
from training.feature_machine.feature_table import make_feature_table, select_features
from training.feature_machine.fitting import assign_folds_or_fewer, fit_patch_dictionary
from training.feature_machine.kernel_machine import fit_machine
from training.feature_machine.track_features import (
    compute_stored_blocks,
    compute_stored_patch_blocks,
    read_block_sizes,
)
from training.fit.augment import augment
from training.fit.epoch import learning_rate_at
from training.fit.settings import AugmentSettings, TrainSettings
from training.loading.batches import read_crops, to_db
from training.loading.crops import Crops, Tracks, evenly_spaced_crops
from training.networks.network import GenreNet, build_model
from training.networks.settings import ModelSettings
from training.selection.cross_validation import select_cross_validation_tracks, split_folds
from training.studies.paired_test import compare_artists

GATE = 0.02
TRACKS_PER_BATCH = 64  # two crops of each
SHORTEST_S = 20.0  # games have thousands of short sounds, which are not music
TEMPERATURE = 0.1
PROJECTION = 128
SCHEDULE_STEPS = 10_000  # the learning rate is a function of the share of the time that is over
LAST_STEPS = 100  # over which loss and share of positives found are averaged
TRAINING = TrainSettings(
    model=ModelSettings(name="short-chunk-resnet", dropout=0.0),
    augment=AugmentSettings(gain_db=6.0, tone_db=6.0),  # a studio's sound would be the easiest thing to find
)
BLOCK, RANDOM = "contrastive", "random"


@dataclass(frozen=True)
class Features:
    """The labelled tracks, and their features by block, (T, D) each."""

    labelled: pa.Table
    genres: tuple[str, ...]
    artist_T: NDArray[np.int64]
    block_TD: Mapping[str, NDArray[np.float32]]


def main() -> None:
    """Pre-train, print a table of accuracies and gains, and whether the gate is passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("unlabelled")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--trunk", default="", help="safetensors file that keeps the trunk")
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201, 202, 203, 204])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    labelled, unlabelled = open_snapshot(arguments.store), open_snapshot(arguments.unlabelled)
    if labelled.mel_fingerprint != unlabelled.mel_fingerprint:
        raise SystemExit("the stores have different mel settings")
    network = make_network(unlabelled)
    if arguments.trunk and Path(arguments.trunk).exists():
        safetensors.torch.load_model(network, arguments.trunk)
    else:
        pretrain(network, unlabelled, arguments.minutes)
    if arguments.trunk:
        safetensors.torch.save_model(network, arguments.trunk)
    print_results(compute_features(labelled, network), arguments.seeds)


def make_network(snapshot: Snapshot) -> GenreNet:
    """Return the default network with random weights and, for a head, the first layer of a projection."""
    torch.manual_seed(TRAINING.seed)
    return build_model(TRAINING.model, PROJECTION, int(snapshot.mel_settings["bands"]))


def pretrain(network: GenreNet, snapshot: Snapshot, minutes: float) -> None:
    """Train the network for some minutes of CPU to find the other crop of the same track."""
    tracks, crop_frames = select_long_tracks(snapshot), crop_frames_of(snapshot)
    model = nn.Sequential(network, nn.ReLU(), nn.Linear(PROJECTION, PROJECTION))
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=TRAINING.weight_decay)
    random, recent = np.random.default_rng(TRAINING.seed), deque[tuple[float, float]](maxlen=LAST_STEPS)
    started, share, step, printed = time.process_time(), 0.0, 0, 0
    while share < 1:
        rate = learning_rate_at(int(share * SCHEDULE_STEPS), SCHEDULE_STEPS, TRAINING)
        for group in optimizer.param_groups:
            group["lr"] = rate
        crops = draw_pairs(tracks, crop_frames, random)
        loss, found = contrastive_loss(model, to_db(read_crops(snapshot.reader, tracks, crops, crop_frames)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(model.parameters(), TRAINING.max_grad_norm)
        optimizer.step()
        recent.append((loss.item(), found))
        step, share = step + 1, (time.process_time() - started) / (60 * minutes)
        if share * 10 >= printed + 1:
            printed = int(share * 10)
            mean_loss, mean_found = np.mean(recent, axis=0)
            print(f"step {step:,}: loss {mean_loss:.3f}, {mean_found:.3f} of partners found", flush=True)


def select_long_tracks(snapshot: Snapshot) -> Tracks:
    """Return the tracks that are long enough to be music, one of each recording, without labels."""
    mel = MelSettings.model_validate(snapshot.mel_settings)
    copy_of, id_T = snapshot.tracks["duplicate_group"], snapshot.tracks["track_id"]
    is_first_T = pc.fill_null(pc.equal(copy_of, id_T), True).to_numpy()
    is_long_T = snapshot.locate(id_T).frames_T >= mel.count_frames(SHORTEST_S)
    tracks = without_labels(snapshot, id_T.filter(pa.array(is_first_T & is_long_T)).to_pylist())
    hours = tracks.locations.frames_T.sum() * mel.hop / mel.sample_rate_hz / 3600
    print(f"{len(tracks):,} tracks without labels, {hours:.1f} h", flush=True)
    return tracks


def without_labels(snapshot: Snapshot, ids: list[str]) -> Tracks:
    """Return tracks with no targets."""
    return Tracks(ids, snapshot.locate(pa.chunked_array([ids])), np.zeros((len(ids), 0), np.int8))


def crop_frames_of(snapshot: Snapshot) -> int:
    """Return the frames of a crop."""
    return MelSettings.model_validate(snapshot.mel_settings).count_frames(TRAINING.crop_s)


def draw_pairs(tracks: Tracks, crop_frames: int, random: np.random.Generator) -> Crops:
    """Draw two crops of each of some tracks: first all first ones, then all second ones."""
    count = min(TRACKS_PER_BATCH, len(tracks))
    track_N = np.tile(random.choice(len(tracks), count, replace=False).astype(np.int32), 2)
    starts_N = np.maximum(tracks.locations.frames_T[track_N] - crop_frames, 0) + 1
    return Crops(track_N, random.integers(starts_N).astype(np.int32))


def contrastive_loss(model: nn.Module, mel_BFM: Tensor) -> tuple[Tensor, float]:
    """Return the cross-entropy of finding each crop's partner, and the share that is found."""
    augmented_BFM, _ = augment(mel_BFM, torch.zeros(len(mel_BFM), 1), TRAINING.augment)
    # 2.4 times as fast as float32 with channels first on a core with AMX.
    with torch.autocast("cpu", torch.bfloat16):
        out_BD = model(augmented_BFM)
    unit_BD = F.normalize(out_BD.float(), dim=1)
    logits_BB = (unit_BD @ unit_BD.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    partner_B = torch.arange(len(logits_BB)).roll(len(logits_BB) // 2)
    found_B = logits_BB.argmax(dim=1) == partner_B
    return F.cross_entropy(logits_BB, partner_B), float(found_B.float().mean())


def compute_features(snapshot: Snapshot, network: GenreNet) -> Features:
    """Compute the blocks of all labelled tracks; the dictionary of patches, which sees no label, is of all."""
    genres, labelled = select_cross_validation_tracks(snapshot.tracks, "top", ())
    ids = labelled["track_id"].to_pylist()
    blocks = compute_stored_blocks(ids, snapshot_url=snapshot.url)
    dictionary = fit_patch_dictionary(blocks, ids, seed=0)
    _, patch_TD = compute_stored_patch_blocks(ids, snapshot_url=snapshot.url, dictionary=dictionary)
    table = make_feature_table(blocks, dict(zip(ids, patch_TD, strict=True)), dictionary)
    sizes = read_block_sizes(table)
    parts = np.split(select_features(table, labelled["track_id"]), np.cumsum([*sizes.values()])[:-1], axis=1)
    embeddings = {
        block: embed(trunk, snapshot, ids)
        for block, trunk in ((RANDOM, make_network(snapshot)), (BLOCK, network))
    }
    return Features(
        labelled, genres, group_tracks(labelled), dict(zip(sizes, parts, strict=True)) | embeddings
    )


def embed(network: GenreNet, snapshot: Snapshot, ids: list[str]) -> NDArray[np.float32]:
    """Return mean and standard deviation of the embedding over evenly spaced crops of each track. Shapes: (T, D)."""
    network.fc = nn.Identity()
    network.eval()
    tracks, crop_frames = without_labels(snapshot, ids), crop_frames_of(snapshot)
    count, rows = TRAINING.validation_crops, []
    crops = evenly_spaced_crops(tracks.locations.frames_T, crop_frames=crop_frames, count=count)
    with torch.inference_mode():
        for first in range(0, len(crops), count):
            mel_BFM = to_db(read_crops(snapshot.reader, tracks, crops[first : first + count], crop_frames))
            values_BD = network(mel_BFM)
            rows.append(torch.cat([values_BD.mean(dim=0), values_BD.std(dim=0)]).numpy())
    return np.stack(rows)


def print_results(features: Features, seeds: list[int]) -> None:
    """Cross-validate each choice of blocks; print accuracies, gains, and whether the gate is passed."""
    six = tuple(block for block in features.block_TD if block not in (BLOCK, RANDOM))
    beside = f"features + {BLOCK}"
    arms = {
        "features": six,
        f"features + {RANDOM}": (*six, RANDOM),
        beside: (*six, BLOCK),
        RANDOM: (RANDOM,),
        BLOCK: (BLOCK,),
    }
    mean_of = {}
    for arm, blocks in arms.items():
        results = [predict_folds(features, blocks, seed) for seed in seeds]
        mean_of[arm] = np.mean([right_T for right_T, _ in results], axis=0)
        by_seed, pair = (f"{r.mean():.3f}" for r, _ in results), np.mean([share for _, share in results])
        print(f"{arm:23} {mean_of[arm].mean():.3f}  seeds {' '.join(by_seed)}  Pop or Rock {pair:.3f}")
    for one, other in ((f"features + {RANDOM}", "features"), (BLOCK, RANDOM), (beside, "features")):
        test = compare_artists(mean_of[one] - mean_of[other], features.artist_T)
        print(
            f"{one} minus {other} {test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f}), {test.p_text}"
        )
    passed = "passed" if test.difference >= GATE else "not passed"
    print(f"gate of {GATE:+.3f}: {passed}, {beside} minus features {test.difference:+.3f}")


def predict_folds(features: Features, blocks: tuple[str, ...], seed: int) -> tuple[NDArray[np.bool_], float]:
    """Return which tracks are predicted right by a machine of some blocks, and the accuracy of Pop or Rock."""
    sizes = {block: features.block_TD[block].shape[1] for block in blocks}
    features_TD = np.concatenate([features.block_TD[block] for block in blocks], axis=1)
    ids = features.labelled["track_id"].combine_chunks()
    probability_TG, truth_TG = np.zeros((2, len(ids), len(features.genres)))
    for fold in split_folds(
        features.labelled, "top", features.genres, folds=FOLDS, validation_share=0.15, seed=seed
    ):
        is_test_T = pc.equal(fold["split"], "test").to_numpy()
        row_T = np.asarray(pc.index_in(fold["track_id"], value_set=ids))
        truth_TG[row_T] = np.array(fold["target"].to_pylist())
        used, test = row_T[~is_test_T], row_T[is_test_T]
        inner_T, _ = assign_folds_or_fewer(features.labelled.take(pa.array(used)), INNER_FOLDS, 0)
        machine, _ = fit_machine(
            features_TD[used], truth_TG[used], features.artist_T[used], inner_T, sizes, "top", seed=0
        )
        probability_TG[test] = machine.predict(features_TD[test], "top")
    is_right_T = probability_TG.argmax(axis=1) == truth_TG.argmax(axis=1)
    return is_right_T, forced_choice(truth_TG, probability_TG, features.genres)


if __name__ == "__main__":
    main()
