"""The crops that a network is trained and validated on: their choice and their order.

Axes: T tracks, N crops of an epoch, B crops of a batch, F frames, M mel bands, G genres.

The plan of an epoch is a function of the settings, the seed and the epoch alone. Ranks share
one plan, so every rank makes the same number of steps, and a run can be resumed with
more or fewer ranks without any change to its crops.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.dataset.frame_reader import Locations
from store.errors import BadInput


@dataclass(frozen=True)
class Tracks:
    """The tracks of one split. Targets are 0 or 1, in a small type: there may be a million tracks."""

    ids: Sequence[str]
    locations: Locations
    target_TG: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.locations)


@dataclass(frozen=True)
class Crops:
    """Windows of tracks, in order of use."""

    track_N: NDArray[np.int32]
    start_N: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.track_N)

    def __getitem__(self, rows: slice) -> "Crops":
        return Crops(self.track_N[rows], self.start_N[rows])


def plan_epoch(
    tracks: Tracks,
    *,
    crop_frames: int,
    crops_per_track: int,
    batch_size: int,
    balance: bool,
    seed: int,
    epoch: int,
) -> Crops:
    """Draw the crops of one epoch: whole batches, with `crops_per_track` crops of each track.

    The last batch is filled with further crops of the tracks in the first. With `balance` each
    genre has an equal number of crops instead, whatever its number of tracks.
    """
    random = np.random.default_rng([seed, epoch])
    wanted = len(tracks) * crops_per_track
    count = -(-wanted // batch_size) * batch_size
    if balance:
        track_N = _equal_genres(tracks.target_TG.argmax(axis=1), count, random)
    else:
        track_N = np.resize(
            random.permutation(np.repeat(np.arange(len(tracks), dtype=np.int32), crops_per_track)), count
        )
    starts_N = (
        np.maximum(tracks.locations.frames_T[track_N] - crop_frames, 0) + 1
    )  # how many starts there are
    return Crops(track_N, random.integers(starts_N).astype(np.int32))


def _equal_genres(genre_T: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int32]:
    """Draw `count` tracks so that no genre has more than one track more than another."""
    members = [
        random.permutation(np.flatnonzero(genre_T == genre).astype(np.int32)) for genre in np.unique(genre_T)
    ]
    rounds = -(-count // len(members))
    in_turn = np.stack([np.resize(tracks, rounds) for tracks in members], axis=1)
    return random.permutation(random.permuted(in_turn, axis=1).ravel()[:count])


def micro_batches_of_rank(micro_batches: int, *, rank: int, world_size: int) -> range:
    """Return the micro-batches of a step that a rank computes; two ranks differ by one micro-batch at most.

    Raises: BadInput if there are fewer micro-batches than ranks.
    """
    if micro_batches < world_size:
        raise BadInput(
            f"a step has {micro_batches} micro-batches (batch_size / micro_batch_size) for {world_size} processes; "
            "raise batch_size, lower micro_batch_size, or use fewer processes"
        )
    return range(rank * micro_batches // world_size, (rank + 1) * micro_batches // world_size)


def crops_of_rank(
    crops: Crops, micro_batches: range, *, batch_size: int, micro_batch_size: int
) -> list[Crops]:
    """Return the crops of some micro-batches of each step: those of one rank, step by step."""
    first, last = micro_batches.start * micro_batch_size, micro_batches.stop * micro_batch_size
    return [crops[start + first : start + last] for start in range(0, len(crops), batch_size)]


def evenly_spaced_crops(frames_T: NDArray[np.int64], *, crop_frames: int, count: int) -> Crops:
    """Return `count` crops of each track, at equal distances from its first frame to its last."""
    last_start_T1 = np.maximum(frames_T - crop_frames, 0)[:, None]
    share = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    start_TK = np.rint(last_start_T1 * share).astype(np.int32)
    return Crops(np.repeat(np.arange(len(frames_T), dtype=np.int32), count), start_TK.ravel())


def repeat_to_length(mel_FM: NDArray[np.float32], crop_frames: int) -> NDArray[np.float16]:
    """Repeat a spectrogram from its first frame until it has the length of a crop."""
    return mel_FM[np.arange(crop_frames) % len(mel_FM)].astype(np.float16)
