"""The plan of a build: which tracks make up a task, the longest first.

Axes: T tracks.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.build.shard_task import Track

LOSSLESS = r"(?i)\.(flac|wav|aif|aiff|aifc)$"
LOSSY_BITS_S, LOSSLESS_BITS_S = 128_000, 800_000  # rather too low than too high: a long track must come early
SLOWEST_BITS_S, FASTEST_BITS_S = 8_000, 6_000_000  # narrow-band speech; 96 kHz, 24 bit, stereo, and some more
BATCHES_AT_ONCE = 64  # taken out of the table, which costs the same for 64 rows and for 4,096


def plan_batches(
    tracks: pa.Table, *, tracks_per_batch: int, audio_s_per_batch: float
) -> Iterator[list[Track]]:
    """Yield all tracks in batches, the longest tracks first; of equally long ones in order of track_id.

    Shapes: rows of CATALOGUE_SCHEMA -> lists of at most `tracks_per_batch`, of at most
        `audio_s_per_batch` by `estimate_audio_s`, but for a single track that is longer.

    Short tracks are what is left at the end, so no worker is busy for long when the others
    are done. Only the batch that is drawn exists as Python objects, not a million tracks.
    """
    work_ms_T = np.ceil(1000 * estimate_audio_s(tracks)).astype(np.int64)  # whole numbers add up exactly
    keyed = pa.table({"track_id": tracks["track_id"], "work_ms": work_ms_T})
    order_T = pc.sort_indices(keyed, [("work_ms", "descending"), ("track_id", "ascending")]).to_numpy()
    known = tracks.select(["track_id", "url", "size_bytes", "signature", "sha1"])
    cuts = _cut(work_ms_T[order_T], tracks_per_batch, int(1000 * audio_s_per_batch))
    while some := list(islice(cuts, BATCHES_AT_ONCE)):
        first, last = some[0][0], some[-1][1]
        rows = known.take(order_T[first:last])
        for start, stop in some:
            yield [Track(**row) for row in rows.slice(start - first, stop - start).to_pylist()]


def _cut(work_ms_T: NDArray[np.int64], most_tracks: int, most_ms: int) -> Iterator[tuple[int, int]]:
    """Yield where each batch starts and stops: it holds what fits, and one track at least."""
    done_ms_T = np.cumsum(work_ms_T)
    start = 0
    while start < len(work_ms_T):
        before_ms = done_ms_T[start] - work_ms_T[start]
        fits = int(np.searchsorted(done_ms_T, before_ms + most_ms, side="right"))
        stop = max(start + 1, min(fits, start + most_tracks))
        yield start, stop
        start = stop


def estimate_audio_s(tracks: pa.Table) -> NDArray[np.float64]:
    """Estimate how long each track plays, as a measure of the work it makes.

    Shapes: columns url, size_bytes and duration_s -> (T,), in seconds; 0 where no size is known.

    Stated durations can be wrong by hours: one counts only if the size makes it possible.
    """
    size_bits_T = 8 * _floats(tracks["size_bytes"])
    stated_s_T = _floats(tracks["duration_s"])
    possible_T = (stated_s_T * SLOWEST_BITS_S <= size_bits_T) & (size_bits_T <= stated_s_T * FASTEST_BITS_S)
    lossless_T = pc.match_substring_regex(tracks["url"], LOSSLESS).to_numpy()
    guessed_s_T = size_bits_T / np.where(lossless_T, LOSSLESS_BITS_S, LOSSY_BITS_S)
    return np.where(possible_T, stated_s_T, guessed_s_T)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    floats: NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy()
    return floats
