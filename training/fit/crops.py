"""Which crops a network sees, in what order, and how they are read.

Axes: T tracks, N crops of an epoch, B crops of a batch, F frames, M mel bands, G genres.

The plan of an epoch is a function of the settings, the seed and the epoch alone. Ranks take
parts of one plan, so every rank makes the same number of steps, and a run can go on with
more or fewer ranks as if it had always had them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.errors import BadInput

# Given a track, a first frame and a count of frames: (F, M) in dB. `Snapshot.mel_slice` is one.
MelSlice = Callable[[str, int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class Tracks:
    """The tracks of one split."""

    ids: tuple[str, ...]
    frames_T: NDArray[np.int64]
    target_TG: NDArray[np.float32]


@dataclass(frozen=True)
class Crops:
    """Windows of tracks, in the order in which they are looked at."""

    track_N: NDArray[np.int64]
    start_N: NDArray[np.int64]

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
    """Draw the crops of one epoch: whole batches, in which each track comes `crops_per_track` times.

    The last batch is filled up with more crops of tracks from the first. With `balance` the
    genres come equally often instead, whatever their number of tracks.
    """
    random = np.random.default_rng([seed, epoch])
    count = len(tracks.ids) * crops_per_track
    whole = -(-count // batch_size) * batch_size
    if balance:
        track_N = _equal_genres(tracks.target_TG.argmax(axis=1), whole, random)
    else:
        track_N = np.resize(random.permutation(np.repeat(np.arange(len(tracks.ids)), crops_per_track)), whole)
    room_N = np.maximum(tracks.frames_T[track_N] - crop_frames, 0) + 1
    return Crops(track_N, random.integers(room_N))


def _equal_genres(genre_T: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` tracks so that no genre has more than one track more than another."""
    members = [random.permutation(np.flatnonzero(genre_T == genre)) for genre in np.unique(genre_T)]
    rounds = -(-count // len(members))
    in_turn = np.stack([np.resize(tracks, rounds) for tracks in members], axis=1)
    return random.permutation(random.permuted(in_turn, axis=1).ravel()[:count])


def micro_batches_of_rank(groups: int, *, rank: int, world_size: int) -> range:
    """Share the groups of a step among the ranks: whole groups, in order, at most one more for some than for others.

    Raises: BadInput if there are fewer groups than ranks.
    """
    if groups < world_size:
        raise BadInput(
            f"a step has {groups} groups of crops (batch_size / micro_batch_size) for {world_size} processes; "
            "raise batch_size, lower micro_batch_size, or use fewer processes"
        )
    return range(rank * groups // world_size, (rank + 1) * groups // world_size)


def crops_of_rank(crops: Crops, groups: range, *, batch_size: int, micro_batch_size: int) -> list[Crops]:
    """Take from every batch of the plan the crops of some groups: those of one rank, step by step."""
    first, last = groups.start * micro_batch_size, groups.stop * micro_batch_size
    return [crops[start + first : start + last] for start in range(0, len(crops), batch_size)]


def evenly_spaced_crops(tracks: Tracks, *, crop_frames: int, count: int) -> Crops:
    """Lay `count` crops over each track, from its first frame to its last, at equal distances."""
    room_T1 = np.maximum(tracks.frames_T - crop_frames, 0)[:, None]
    share = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    start_TK = np.rint(room_T1 * share).astype(np.int64)
    return Crops(np.repeat(np.arange(len(tracks.ids)), count), start_TK.ravel())


def read_crops(mel_slice: MelSlice, tracks: Tracks, crops: Crops, crop_frames: int) -> NDArray[np.float16]:
    """Read crops one after the other; a track shorter than a crop is played again from its start.

    Shapes: (B, F, M).
    Units:  dB, in float16: an error of 0.005 dB for half of the way to the device.
    """
    mels = [
        mel_slice(tracks.ids[track], int(start), int(min(crop_frames, tracks.frames_T[track])))
        for track, start in zip(crops.track_N, crops.start_N, strict=True)
    ]
    return np.stack([repeat_to_length(mel_FM, crop_frames) for mel_FM in mels])


def repeat_to_length(mel_FM: NDArray[np.float32], crop_frames: int) -> NDArray[np.float16]:
    """Play what may be shorter than a crop again from its start, until it is one."""
    return mel_FM[np.arange(crop_frames) % len(mel_FM)].astype(np.float16)


def cache_in_memory(
    mel_slice: MelSlice, *splits: Tracks, heartbeat: Callable[[], None] = lambda: None
) -> MelSlice:
    """Read every track once, and answer from memory then. `heartbeat` is called after each track."""
    mels = {}
    for tracks in splits:
        for track_id, frames in zip(tracks.ids, tracks.frames_T, strict=True):
            mels[track_id] = mel_slice(track_id, 0, int(frames)).astype(np.float16)
            heartbeat()

    def held(track_id: str, start: int, frames: int) -> NDArray[np.float32]:
        return mels[track_id][start : start + frames].astype(np.float32)

    return held
