from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.dataset.frame_reader import Locations
from store.dataset.object_ranges import BLOCK_FRAMES
from store.errors import BadInput
from tests.support.held_frames import locations_of
from training.loading.crops import (
    Tracks,
    crops_of_rank,
    evenly_spaced_crops,
    micro_batches_of_rank,
    plan_epoch,
)
from training.loading.settings import Balance

CROP_FRAMES = 10


@st.composite
def tracks(draw, genres=3):
    frames = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    genre_T = [draw(st.integers(0, genres - 1)) for _ in frames]
    ids = tuple(f"track {number}" for number in range(len(frames)))
    artist_T = np.array([0, *(draw(st.integers(-1, 3)) for _ in frames[1:])], np.int32)
    return Tracks(ids, locations_of(frames, ids), np.eye(genres, dtype=np.int8)[genre_T], artist_T)


BALANCES = st.sampled_from(get_args(Balance))


def plan(tracks, *, per_track=3, batch_size=12, balance="none", seed=0, epoch=1, mixed_runs=0):
    return plan_epoch(
        tracks,
        crop_frames=CROP_FRAMES,
        crops_per_track=per_track,
        batch_size=batch_size,
        balance=balance,
        seed=seed,
        epoch=epoch,
        mixed_runs=mixed_runs,
    )


@given(tracks(), st.integers(1, 5), st.integers(1, 16))
def test_every_track_has_its_number_of_crops_and_more_fill_the_last_batch(tracks, per_track, batch_size):
    crops = plan(tracks, per_track=per_track, batch_size=batch_size)
    assert len(crops) % batch_size == 0
    assert len(crops) - batch_size < len(tracks.ids) * per_track <= len(crops)
    asked = crops.track_N[: len(tracks.ids) * per_track]
    assert Counter(asked.tolist()) == dict.fromkeys(range(len(tracks.ids)), per_track)


@given(tracks(), BALANCES, st.integers(0, 99))
def test_crops_lie_within_their_tracks(tracks, balance, seed):
    crops = plan(tracks, balance=balance, seed=seed)
    last_N = np.maximum(tracks.locations.frames_T[crops.track_N] - CROP_FRAMES, 0)
    assert (crops.start_N >= 0).all()
    assert (crops.start_N <= last_N).all()


@given(tracks(), st.integers(1, 6), BALANCES)
def test_ranks_share_each_batch_whatever_their_number(tracks, world_size, balance):
    crops = plan(tracks, balance=balance)
    micro_batches = [micro_batches_of_rank(6, rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [crops_of_rank(crops, its, batch_size=12, micro_batch_size=2) for its in micro_batches]
    assert len({len(share) for share in shares}) == 1, "equal numbers of steps"
    for step, parts in enumerate(zip(*shares, strict=True)):
        whole = crops[12 * step : 12 * (step + 1)]
        np.testing.assert_array_equal(np.concatenate([part.track_N for part in parts]), whole.track_N)
        np.testing.assert_array_equal(np.concatenate([part.start_N for part in parts]), whole.start_N)


@st.composite
def tracks_in_shards(draw):
    """Return tracks of one crop's length or more that lie end to end in some shards, runs of frames apart."""
    shard_T = np.sort(np.array(draw(st.lists(st.integers(0, 2), min_size=1, max_size=20)), np.int32))
    frames_T = np.array([draw(st.integers(CROP_FRAMES, 3 * BLOCK_FRAMES)) for _ in shard_T])
    start_T = np.concatenate([np.cumsum(its) - its for its in (frames_T[shard_T == it] for it in range(3))])
    locations = Locations(np.array(["a", "b", "c"], object), shard_T, start_T, frames_T)
    return Tracks((), locations, np.ones((len(shard_T), 1), np.int8))


@given(
    tracks_in_shards(), st.integers(1, 12), BALANCES.filter(lambda it: "artist" not in it), st.integers(0, 9)
)
def test_twice_the_mixed_runs_are_enough_to_fetch_each_run_once(tracks, mixed_runs, balance, seed):
    """But for those whose crops come at the end and at the beginning. The crops are those of a random order."""
    settings = {"per_track": 5, "balance": balance, "seed": seed}
    random, crops = plan(tracks, **settings), plan(tracks, mixed_runs=mixed_runs, **settings)
    pairs, wanted = (sorted(zip(its.track_N, its.start_N, strict=True)) for its in (crops, random))
    assert pairs == wanted
    frame_N = tracks.locations.start_T[crops.track_N] + crops.start_N
    runs = list(zip(tracks.locations.shard_T[crops.track_N], frame_N // BLOCK_FRAMES, strict=True))
    kept, fetched = [], 0
    for run in runs:
        if run not in kept:
            kept, fetched = [*kept, run][-2 * mixed_runs :], fetched + 1
    assert fetched <= len(set(runs)) + mixed_runs


@given(st.integers(1, 50), st.integers(1, 50))
def test_two_ranks_differ_by_one_micro_batch_at_most(count, world_size):
    world_size = min(count, world_size)
    shares = [micro_batches_of_rank(count, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(tracks(), st.integers(0, 99), st.integers(1, 99))
def test_a_plan_is_the_same_twice(tracks, seed, epoch):
    first, second = (plan(tracks, seed=seed, epoch=epoch) for _ in range(2))
    np.testing.assert_array_equal(first.track_N, second.track_N)
    np.testing.assert_array_equal(first.start_N, second.start_N)


def test_other_epochs_and_seeds_have_other_crops():
    some = Tracks(("a", "b"), locations_of([500, 500]), np.eye(2, dtype=np.int8))
    plans = [plan(some), plan(some, epoch=2), plan(some, seed=1)]
    assert len({tuple(crops.start_N.tolist()) for crops in plans}) == 3


def spread(count_T, groups_T):
    """Return the greatest and the least number of crops of the groups of some tracks."""
    counts = Counter()
    for group, count in zip(groups_T, count_T, strict=True):
        counts[group] += count
    return max(counts.values()), min(counts.values())


@given(tracks(), st.integers(1, 40), st.sampled_from(["genre", "artist", "genre-artist"]))
def test_balanced_groups_differ_by_one_crop_and_so_do_those_within_them(tracks, batch_size, balance):
    crops = plan(tracks, balance=balance, batch_size=batch_size)
    assert len(crops) == len(plan(tracks, batch_size=batch_size)), "balance changes no number of steps"
    count_T = np.bincount(crops.track_N, minlength=len(tracks))
    genres = tracks.target_TG.argmax(axis=1).tolist()
    artists = [it if it >= 0 else f"unknown {row}" for row, it in enumerate(tracks.artist_T.tolist())]
    levels = {
        "genre": [genres],
        "artist": [artists],
        "genre-artist": [genres, list(zip(genres, artists, strict=True))],
    }[balance]
    within = [None] * len(tracks)
    for groups in [*levels, range(len(tracks))]:
        for parent in set(within):
            rows = [row for row, its in enumerate(within) if its == parent]
            most, least = spread(count_T[rows], [groups[row] for row in rows])
            assert most - least <= 1
        within = groups


def test_balance_by_artist_without_artists_is_refused():
    some = Tracks(("a", "b"), locations_of([500, 500]), np.eye(2, dtype=np.int8))
    with pytest.raises(BadInput, match="balance artist: no training track has an artist"):
        plan(some, balance="artist")


def test_fewer_micro_batches_than_ranks_are_refused():
    with pytest.raises(BadInput, match=r"a step has 2 micro-batches .* for 3 processes; raise batch_size"):
        micro_batches_of_rank(2, rank=0, world_size=3)


@given(tracks(), st.integers(2, 9))
def test_even_crops_reach_from_the_first_frame_to_the_last(tracks, count):
    crops = evenly_spaced_crops(tracks.locations.frames_T, crop_frames=CROP_FRAMES, count=count)
    start_TK = crops.start_N.reshape(-1, count)
    np.testing.assert_array_equal(start_TK[:, 0], 0)
    np.testing.assert_array_equal(start_TK[:, -1], np.maximum(tracks.locations.frames_T - CROP_FRAMES, 0))
    assert np.ptp(np.diff(start_TK, axis=1), axis=1).max() <= 1


def test_one_even_crop_lies_in_the_middle():
    assert evenly_spaced_crops(np.array([30]), crop_frames=CROP_FRAMES, count=1).start_N.tolist() == [10]
