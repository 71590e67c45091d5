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
from store.dataset.object_ranges import BLOCK_FRAMES
from store.errors import BadInput
from training.loading.settings import Balance, needs_artists


@dataclass(frozen=True)
class Tracks:
    """The tracks of one split. Targets are 0 or 1, in a small type: there may be a million tracks.

    Artists are numbers, -1 for an unknown one; None where nothing depends on them.
    """

    ids: Sequence[str]
    locations: Locations
    target_TG: NDArray[np.int8]
    artist_T: NDArray[np.int32] | None = None

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
        return self.take(rows)

    def take(self, rows: slice | NDArray[np.integer]) -> "Crops":
        """Return some of the crops."""
        return Crops(self.track_N[rows], self.start_N[rows])


def plan_epoch(
    tracks: Tracks,
    *,
    crop_frames: int,
    crops_per_track: int,
    batch_size: int,
    balance: Balance,
    seed: int,
    epoch: int,
    mixed_runs: int = 0,
) -> Crops:
    """Draw the crops of one epoch: whole batches, with `crops_per_track` crops of each track.

    Raises: BadInput if artists are to be balanced and none is known.

    The last batch is filled with further crops of the tracks in the first. With `balance` each genre or artist
    has an equal number of crops instead, whatever its number of tracks. The order is random; with `mixed_runs`
    it is that of `_order_by_runs`, and the crops are the same.
    """
    random = np.random.default_rng([seed, epoch])
    wanted = len(tracks) * crops_per_track
    count = -(-wanted // batch_size) * batch_size
    track_T = np.arange(len(tracks), dtype=np.int32)
    if balance == "none":
        track_N = np.resize(random.permutation(np.repeat(track_T, crops_per_track)), count)
    else:
        count_T = _balanced_counts(_balanced_keys(tracks, balance), count, random)
        track_N = random.permutation(np.repeat(track_T, count_T))
    number_of_starts_T = (np.maximum(tracks.locations.frames_T - crop_frames, 0) + 1).astype(np.int32)
    crops = Crops(track_N, random.integers(number_of_starts_T[track_N]).astype(np.int32))
    return crops.take(_order_by_runs(tracks.locations, crops, mixed_runs, random)) if mixed_runs else crops


def _balanced_keys(tracks: Tracks, balance: Balance) -> list[NDArray[np.int64]]:
    """Return by what tracks are grouped, level by level: genre, artist, or artist within genre.

    Raises: BadInput if no artist is known.

    A track of an unknown artist is a group of its own.
    """
    track_T = np.arange(len(tracks), dtype=np.int64)
    keys: list[NDArray[np.int64]] = []
    if balance in ("genre", "genre-artist"):
        keys.append(tracks.target_TG.argmax(axis=1))
    if needs_artists(balance):
        artist_T = np.full(len(tracks), -1) if tracks.artist_T is None else tracks.artist_T
        if artist_T.max() < 0:
            raise BadInput(
                f"balance {balance}: no training track has an artist; build from a source that names artists, "
                "or use another balance"
            )
        keys.append(np.where(artist_T < 0, artist_T.max() + 1 + track_T, artist_T))
    return [*keys, track_T]


def _balanced_counts(
    keys: Sequence[NDArray[np.int64]], count: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Share `count` crops among groups of tracks, then each group's among its own groups, down to tracks.

    Shapes: keys (T,), one for each level, the last of which differs for every track -> (T,).

    Groups of one group differ by one crop at most; which ones have one more is drawn at random.
    """
    group_T, count_P = np.zeros(len(keys[0]), np.int64), np.array([count])
    for key_T in keys:
        _, first_C, child_T = np.unique(
            group_T * (key_T.max() + 1) + key_T, return_index=True, return_inverse=True
        )
        count_P = _share_equally(count_P, group_T[first_C], random)
        group_T = child_T
    return count_P[group_T]


def _share_equally(
    count_P: NDArray[np.int64], parent_C: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """Share each parent's count among its children. Shapes: (P,), (C,) parents in order -> (C,)."""
    children_P = np.bincount(parent_C)
    order_C = np.lexsort((random.random(len(parent_C)), parent_C))
    rank_C = np.empty_like(parent_C)
    rank_C[order_C] = np.arange(len(parent_C)) - (np.cumsum(children_P) - children_P)[parent_C]
    each_P, more_P = np.divmod(count_P, children_P)
    return each_P[parent_C] + (rank_C < more_P[parent_C])


def _order_by_runs(
    locations: Locations, crops: Crops, mixed_runs: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return an order in which at most `mixed_runs` runs of stored frames (BLOCK_FRAMES each) are in use at any time.

    Shapes: (N,) indices of crops.

    Runs come in random order, and the crops of each are spread at random over the time in which so many runs begin.
    What would come after the end of the epoch comes at its beginning instead, so no part of it is mixed less; with as
    many mixed runs as there are, the order is truly random.
    """
    run_N = _runs_of(locations, crops)
    runs = int(run_N.max()) + 1
    turn_R = random.permutation(runs)
    time_N = (turn_R[run_N] + min(mixed_runs, runs) * random.random(len(crops))) % runs
    return np.argsort(time_N)


def _runs_of(locations: Locations, crops: Crops) -> NDArray[np.int64]:
    """Number the runs that crops begin in, without a gap. Shapes: (N,)."""
    end_T = locations.start_T + locations.frames_T
    blocks_S = np.zeros(len(locations.shards), np.int64)
    np.maximum.at(blocks_S, locations.shard_T, -(-end_T // BLOCK_FRAMES))
    first_S = np.cumsum(blocks_S) - blocks_S
    block_N = (locations.start_T[crops.track_N] + crops.start_N) // BLOCK_FRAMES
    run_N = first_S[locations.shard_T[crops.track_N]] + block_N
    is_used_R = np.bincount(run_N) > 0
    return (np.cumsum(is_used_R) - 1)[run_N]


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
