"""The batches of a build: which tracks one task builds, the longest tracks first.

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
LOSSY_BITS_S, LOSSLESS_BITS_S = (
    128_000,
    800_000,
)  # low: a track taken for a longer one is built early
SLOWEST_BITS_S, FASTEST_BITS_S = 8_000, 6_000_000  # narrow-band speech; somewhat above 96 kHz, 24 bit, stereo
BATCHES_PER_TAKE = 64  # taking rows out of the table costs about the same for one batch as for 64


def plan_batches(
    tracks: pa.Table, *, tracks_per_batch: int, audio_s_per_batch: float
) -> Iterator[list[Track]]:
    """Yield all tracks in batches, the longest tracks first; of equally long ones in order of track_id.

    Shapes: rows of CATALOGUE_SCHEMA -> lists of at most `tracks_per_batch` tracks and, by
        `estimate_audio_s`, at most `audio_s_per_batch`, except for a single track that is longer.

    The last batches have short tracks, so no worker is busy for long when the others are done.
    Only a few batches exist as Python objects at a time, not a million tracks.
    """
    work_ms_T = np.ceil(1000 * estimate_audio_s(tracks)).astype(np.int64)  # integers add up exactly
    keyed = pa.table({"track_id": tracks["track_id"], "work_ms": work_ms_T})
    order_T = pc.sort_indices(keyed, [("work_ms", "descending"), ("track_id", "ascending")]).to_numpy()
    needed = tracks.select(["track_id", "url", "size_bytes", "signature", "sha1"])
    ranges = _batch_ranges(work_ms_T[order_T], tracks_per_batch, int(1000 * audio_s_per_batch))
    while some := list(islice(ranges, BATCHES_PER_TAKE)):
        first, last = some[0][0], some[-1][1]
        rows = needed.take(order_T[first:last])
        for start, stop in some:
            yield [Track(**row) for row in rows.slice(start - first, stop - start).to_pylist()]


def _batch_ranges(work_ms_T: NDArray[np.int64], max_tracks: int, max_ms: int) -> Iterator[tuple[int, int]]:
    """Yield where each batch starts and stops: it has as many tracks as fit, at least one."""
    done_ms_T = np.cumsum(work_ms_T)
    start = 0
    while start < len(work_ms_T):
        start_ms = done_ms_T[start] - work_ms_T[start]
        stop_by_ms = int(np.searchsorted(done_ms_T, start_ms + max_ms, side="right"))
        stop = max(start + 1, min(stop_by_ms, start + max_tracks))
        yield start, stop
        start = stop


def estimate_audio_s(tracks: pa.Table) -> NDArray[np.float64]:
    """Estimate the duration of each track, a measure of the work it makes.

    Shapes: columns url, size_bytes and duration_s -> (T,); 0 where no size is known.
    Units:  seconds.

    Stated durations can be wrong by hours: one is used only if the file's size makes it plausible.
    """
    size_bits_T = 8 * _floats(tracks["size_bytes"])
    stated_s_T = _floats(tracks["duration_s"])
    is_plausible_T = (stated_s_T * SLOWEST_BITS_S <= size_bits_T) & (
        size_bits_T <= stated_s_T * FASTEST_BITS_S
    )
    is_lossless_T = pc.match_substring_regex(tracks["url"], LOSSLESS).to_numpy()
    estimated_s_T = size_bits_T / np.where(is_lossless_T, LOSSLESS_BITS_S, LOSSY_BITS_S)
    return np.where(is_plausible_T, stated_s_T, estimated_s_T)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    floats: NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy()
    return floats
