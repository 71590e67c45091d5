import gc
import heapq
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.build.batches import estimate_audio_s, plan_batches
from preprocessing.build.shard_task import Track
from preprocessing.catalogue.sources import CATALOGUE_SCHEMA

MB = 1_000_000

any_rows = st.lists(
    st.tuples(
        st.sampled_from([".mp3", ".flac", ".WAV"]),
        st.none() | st.integers(0, 200 * MB),
        st.none() | st.floats(0, 40_000),
    ),
    max_size=60,
)
any_bounds = st.fixed_dictionaries(
    {"tracks_per_batch": st.integers(1, 9), "audio_s_per_batch": st.floats(0.5, 20_000)}
)


def catalogue(rows):
    return pa.Table.from_pylist(
        [
            {
                "track_id": f"{number * 7 % 61:02d}",
                "url": f"/music/{number}{suffix}",
                "size_bytes": size,
                "duration_s": duration_s,
                "signature": f"{size}-1",
                "sha1": None,
            }
            for number, (suffix, size, duration_s) in enumerate(rows)
        ],
        schema=CATALOGUE_SCHEMA,
    )


def work_of(table):
    return dict(zip(table["track_id"].to_pylist(), estimate_audio_s(table).tolist(), strict=True))


def one(suffix, size, duration_s):
    return estimate_audio_s(catalogue([(suffix, size, duration_s)])).item()


@settings(deadline=None)
@given(any_rows, any_bounds)
def test_every_track_is_in_one_batch_with_all_that_is_known_of_it(rows, bounds):
    table = catalogue(rows)
    planned = [track for batch in plan_batches(table, **bounds) for track in batch]
    columns = ("track_id", "url", "size_bytes", "signature", "sha1")
    wanted = {Track(**row) for row in table.select(columns).to_pylist()}
    assert len(planned) == len(rows)
    assert set(planned) == wanted


@settings(deadline=None)
@given(any_rows, any_bounds)
def test_a_batch_keeps_to_its_bounds_but_for_one_long_track(rows, bounds):
    table = catalogue(rows)
    work_s = work_of(table)
    for batch in plan_batches(table, **bounds):
        assert 1 <= len(batch) <= bounds["tracks_per_batch"]
        total_s = sum(work_s[track.track_id] for track in batch)
        assert len(batch) == 1 or total_s <= bounds["audio_s_per_batch"] * (1 + 1e-12)


@settings(deadline=None)
@given(any_rows, any_bounds)
def test_a_batch_is_closed_only_when_the_next_track_does_not_fit(rows, bounds):
    table = catalogue(rows)
    work_s = work_of(table)
    for batch, following in pairwise(plan_batches(table, **bounds)):
        total_s = sum(work_s[track.track_id] for track in [*batch, following[0]])
        full = len(batch) == bounds["tracks_per_batch"]
        assert full or total_s > bounds["audio_s_per_batch"] - 0.1, (
            "each track is rounded up to a millisecond"
        )


@settings(deadline=None)
@given(any_rows, any_bounds)
def test_the_longest_come_first_and_equal_ones_by_name(rows, bounds):
    table = catalogue(rows)
    work_ms = {track_id: int(np.ceil(1000 * work_s)) for track_id, work_s in work_of(table).items()}
    planned = [track.track_id for batch in plan_batches(table, **bounds) for track in batch]
    assert planned == sorted(work_ms, key=lambda track_id: (-work_ms[track_id], track_id))


@settings(deadline=None)
@given(any_rows, any_bounds, st.integers(1, 8))
def test_no_worker_is_busy_longer_than_another_by_more_than_its_last_batch(rows, bounds, workers):
    table = catalogue(rows)
    work_s = work_of(table)
    batches_s = [sum(work_s[t.track_id] for t in batch) for batch in plan_batches(table, **bounds)]
    busy_s = [0.0] * workers
    last_s = 0.0  # the batch that the worker which ends last took at its end
    for batch_s in batches_s:
        ends_s = heapq.heappop(busy_s) + batch_s
        last_s = batch_s if ends_s >= max(busy_s, default=0.0) else last_s
        heapq.heappush(busy_s, ends_s)
    assert max(busy_s) - min(busy_s) <= last_s + 1e-6
    assert last_s <= max(bounds["audio_s_per_batch"], *work_s.values(), 0.0) * (1 + 1e-12)


def test_one_endless_track_among_short_ones_does_not_keep_a_worker_alone():
    rows = [(".mp3", 480_000, 30.0)] * 59 + [(".mp3", 10 * MB, 600.0)]
    batches = list(plan_batches(catalogue(rows), tracks_per_batch=8, audio_s_per_batch=240.0))
    assert [len(batch) for batch in batches] == [1, *[8] * 7, 3]
    busy_s = [0.0, 0.0]
    for batch in batches:
        heapq.heapreplace(busy_s, busy_s[0] + sum(work_of(catalogue(rows))[t.track_id] for t in batch))
    assert max(busy_s) - min(busy_s) <= 90.0, "as long as the shortest batch"


def test_a_stated_duration_counts_if_the_size_makes_it_possible():
    assert one(".mp3", 10 * MB, 250.0) == 250.0
    assert one(".mp3", 10 * MB, 10_000.0) == 10_000.0, "8 kbit/s"
    assert one(".mp3", 10 * MB, 10_001.0) == 625.0, "no: taken as 128 kbit/s"
    assert one(".flac", 10 * MB, 100_000.0) == 100.0, "no: taken as 800 kbit/s"
    assert one(".WAV", 6 * MB, 8.0) == 8.0, "6 Mbit/s"
    assert one(".WAV", 6 * MB, 7.9) == 60.0
    assert one(".mp3", 1_600_000, float("nan")) == 100.0
    assert one(".mp3", 1_600_000, -5.0) == 100.0


@pytest.mark.parametrize("size", [None, 0])
def test_a_track_of_unknown_size_is_little_work_whatever_is_stated(size):
    assert one(".mp3", size, 3_600.0) == 0.0


def test_a_catalogue_in_many_pieces_is_planned_like_one():
    table = catalogue([(".mp3", number * MB, None) for number in range(1, 301)])
    pieces = pa.concat_tables(table.slice(start, 7) for start in range(0, 300, 7))
    batches = list(plan_batches(pieces, tracks_per_batch=2, audio_s_per_batch=1e9))
    assert [[track.size_bytes for track in batch] for batch in batches] == [
        [number * MB, (number - 1) * MB] for number in range(300, 0, -2)
    ]


def test_only_what_is_drawn_becomes_python_objects():
    count = 100_000
    table = pa.table(
        {
            "track_id": [f"{number:06d}" for number in range(count)],
            "url": ["/music/a.mp3"] * count,
            "size_bytes": [MB] * count,
            "duration_s": pa.nulls(count, pa.float64()),
            "signature": pa.nulls(count, pa.string()),
            "sha1": pa.nulls(count, pa.string()),
        }
    )
    gc.collect()
    before = _tracks_alive()
    batches = plan_batches(table, tracks_per_batch=64, audio_s_per_batch=1e9)
    assert [track.track_id for track in next(batches)] == [f"{number:06d}" for number in range(64)]
    assert _tracks_alive() - before < 1_000


def _tracks_alive():
    return sum(type(thing) is Track for thing in gc.get_objects())
