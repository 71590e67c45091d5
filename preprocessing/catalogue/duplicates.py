"""Tracks that hold the same recording: the same file twice, or another encoding of it.

Axes: T tracks, K tracks that have a fingerprint, D digits of a fingerprint, L leaves, R roots of
groups, P pairs of tracks; I and J the tracks of a leaf and those it is compared with.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from preprocessing.mel.fingerprint import (
    MAX_MODULATION_DISTANCE,
    MAX_SPECTRUM_DISTANCE_DB,
    MODULATION,
    MODULATION_OFFSET,
    SPECTRUM,
    STEP_DB,
    match_fingerprints,
    modulation_norm,
)

MAX_DURATION_DIFFERENCE_S = 1.5  # in length: padding, and what encoders add
LEAF_TRACKS = 256  # tracks of like tone that are compared with others together
TILE_TRACKS = 8_192  # tracks that a leaf is compared with at once: 8 MiB of float32
ROUNDING_MARGIN = (
    1.001  # what float32 rounds off must not lose a copy: `match_fingerprints` has the last word
)
PAIRS_PER_BATCH = 1 << 15  # pairs that are looked at closely at once

Rows = NDArray[np.int64]


def add_duplicate_groups(catalogue: pa.Table, index_rows: pa.Table) -> pa.Table:
    """Fill a catalogue's column `duplicate_group`: for each copy the first track that is like it.

    Shapes: `index_rows` has a row for each of the catalogue's, in its order, with sha256, fingerprint
            and decoded_s, null where the track was rejected or never tried.

    "First" is in the catalogue's order, which is that of track_id. A track that is alone has null.
    """
    assert len(index_rows) == len(catalogue)
    least_T = group_duplicates(index_rows["sha256"], index_rows["fingerprint"], index_rows["decoded_s"])
    is_alone_T = np.bincount(least_T, minlength=len(least_T))[least_T] == 1
    names = catalogue["track_id"].take(pa.array(least_T, mask=is_alone_T))
    place = catalogue.schema.get_field_index("duplicate_group")
    if place < 0:
        return catalogue.append_column("duplicate_group", names)
    return catalogue.set_column(place, "duplicate_group", names)


def group_duplicates(
    sha256: pa.ChunkedArray, fingerprints: pa.ChunkedArray, durations_s: pa.ChunkedArray
) -> NDArray[np.int64]:
    """Find the tracks that hold the same recording.

    Shapes: T rows of binary(32), binary(64) and float64, each null where unknown -> (T,): the least
            row of the group that a track is in, its own where it is alone.

    Files of equal content are copies. So are tracks about as long whose fingerprints are
    alike. Copies of a copy belong to one group, even if the outermost are no longer alike.
    """
    groups = _Groups(len(sha256))
    rows_K, content_KD = _known_bytes(sha256)
    groups.link(*_equal_pairs(rows_K, content_KD))
    rows_K, digits_KD = _known_bytes(fingerprints)
    seconds_T = durations_s.to_numpy().astype(np.float64)  # null becomes NaN, which is near nothing
    _link_alike(groups, rows_K, digits_KD.view(np.int8), seconds_T[rows_K])
    return groups.least()


class _Groups:
    """Which rows belong together; each group is known by its least row."""

    def __init__(self, rows: int) -> None:
        self._lesser_T = np.arange(rows)

    def find(self, rows_P: Rows) -> Rows:
        """Give the least row of each row's group, as far as is known by now."""
        found_P = self._lesser_T[rows_P]
        while not np.array_equal(found_P, lesser_P := self._lesser_T[found_P]):
            found_P = lesser_P
        self._lesser_T[rows_P] = found_P
        return found_P

    def link(self, first_P: Rows, second_P: Rows) -> None:
        """Join the groups of each pair of rows."""
        if not len(first_P):
            return
        ends = np.concatenate([self.find(first_P), self.find(second_P)])
        roots_R, places = np.unique(ends, return_inverse=True)
        links = (np.ones(len(first_P), dtype=np.int8), places.reshape(2, -1))
        graph = coo_array(links, shape=(len(roots_R), len(roots_R)))
        _, joined_R = connected_components(graph, directed=False)
        _, first_R = np.unique(joined_R, return_index=True)  # roots are sorted: the first is the least
        self._lesser_T[roots_R] = roots_R[first_R[joined_R]]

    def least(self) -> Rows:
        return self.find(np.arange(len(self._lesser_T)))


def _known_bytes(column: pa.ChunkedArray) -> tuple[Rows, NDArray[np.uint8]]:
    """Give the rows of a column of fixed-size binary that are not null, and their bytes."""
    array = column.combine_chunks()
    width = array.type.byte_width
    rows_K = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    buffer = array.buffers()[1]
    if not len(rows_K) or buffer is None:
        return rows_K[:0], np.empty((0, width), np.uint8)
    bytes_TD = np.frombuffer(buffer, np.uint8).reshape(-1, width)[array.offset :][: len(array)]
    return rows_K, bytes_TD if len(rows_K) == len(array) else bytes_TD[rows_K]


def _equal_pairs(rows_K: Rows, bytes_KD: NDArray[np.uint8]) -> tuple[Rows, Rows]:
    """Pair each row with the next one that has the same bytes."""
    words_KW = np.ascontiguousarray(bytes_KD).view(np.uint64)
    order_K = np.lexsort(words_KW.T)
    sorted_KW = words_KW[order_K]
    is_equal = (sorted_KW[1:] == sorted_KW[:-1]).all(axis=1)
    return rows_K[order_K[:-1][is_equal]], rows_K[order_K[1:][is_equal]]


def _link_alike(
    groups: _Groups, rows_K: Rows, digits_KD: NDArray[np.int8], seconds_K: NDArray[np.float64]
) -> None:
    """Join all rows whose fingerprints are alike and whose lengths are near.

    What is in one group already is not compared again: a hundred thousand drones that are all
    alike cost some seconds, and no more memory than other tracks.
    """
    for leaf, window in _tiles(digits_KD[:, SPECTRUM] * STEP_DB[SPECTRUM]):
        root_I, root_J = groups.find(rows_K[leaf]), groups.find(rows_K[window])
        if root_I.min() == root_I.max() == root_J.min() == root_J.max():
            continue
        is_near_IJ = _excess(digits_KD[leaf], digits_KD[window]) <= 0
        if (
            np.count_nonzero(is_near_IJ) > PAIRS_PER_BATCH
        ):  # hardly ever, and then most are in one group already
            is_near_IJ &= root_I[:, None] != root_J
        near = np.flatnonzero(is_near_IJ)
        for first in range(0, len(near), PAIRS_PER_BATCH):
            i, j = np.divmod(near[first : first + PAIRS_PER_BATCH], len(window))
            first_P, second_P = leaf[i], window[j]
            is_open_P = np.abs(seconds_K[first_P] - seconds_K[second_P]) <= MAX_DURATION_DIFFERENCE_S
            is_open_P &= groups.find(rows_K[first_P]) != groups.find(rows_K[second_P])
            first_P, second_P = first_P[is_open_P], second_P[is_open_P]
            is_alike_P = match_fingerprints(digits_KD[first_P], digits_KD[second_P])
            groups.link(rows_K[first_P[is_alike_P]], rows_K[second_P[is_alike_P]])


def _tiles(tone_KD: NDArray[np.float32]) -> Iterator[tuple[Rows, Rows]]:
    """Give all pairs of tracks whose tone is near, as a few against a few thousand at a time.

    Tracks are parted into leaves of like tone; each is paired with the leaves from it on
    whose bounds are within reach. No pair within reach is missed, as bounds hold all.
    """
    leaves = list(_leaves(np.arange(len(tone_KD)), tone_KD))
    lowest_LD = np.array([tone_KD[leaf].min(axis=0) for leaf in leaves])
    highest_LD = np.array([tone_KD[leaf].max(axis=0) for leaf in leaves])
    for number, leaf in enumerate(leaves):
        gap_LD = np.maximum(lowest_LD[number:] - highest_LD[number], lowest_LD[number] - highest_LD[number:])
        apart_L = np.sqrt(np.square(np.maximum(gap_LD, 0)).sum(axis=1))
        reached = number + np.flatnonzero(apart_L <= MAX_SPECTRUM_DISTANCE_DB * ROUNDING_MARGIN)
        others = np.concatenate([leaves[other] for other in reached])
        for start in range(0, len(others), TILE_TRACKS):
            yield leaf, others[start : start + TILE_TRACKS]


def _leaves(rows: Rows, tone_KD: NDArray[np.float32]) -> Iterator[Rows]:
    """Part rows into leaves: halve them across the digit in which they differ most, and so on."""
    if len(rows) <= LEAF_TRACKS:
        if len(rows):
            yield rows
        return
    widest = int(np.ptp(tone_KD[rows], axis=0).argmax())
    halved = rows[np.argpartition(tone_KD[rows, widest], len(rows) // 2)]
    yield from _leaves(halved[: len(rows) // 2], tone_KD)
    yield from _leaves(halved[len(rows) // 2 :], tone_KD)


def _excess(first_ID: NDArray[np.int8], second_JD: NDArray[np.int8]) -> NDArray[np.float32]:
    """Give, for all pairs, the square of how far movements are apart, above what copies may be.

    Shapes: (I, 64), (J, 64) -> (I, J), at most 0 for copies.

    With a and b the lengths, s the share and c the digits of stillness, it is
    |x - y|^2 - s^2 ((a + b) / 2 + c)^2: all of it products of what is known of one side, so
    one matrix product gives it, the fastest thing a processor does.
    """
    share, still = np.float32(MAX_MODULATION_DISTANCE * ROUNDING_MARGIN) ** 2, np.float32(MODULATION_OFFSET)
    x_ID, y_JD = first_ID[:, MODULATION].astype(np.float32), second_JD[:, MODULATION].astype(np.float32)
    a_I1, b_J1 = modulation_norm(first_ID)[:, None], modulation_norm(second_JD)[:, None]
    alone_I1 = a_I1**2 * (1 - share / 4) - a_I1 * share * still - share * still**2
    alone_J1 = b_J1**2 * (1 - share / 4) - b_J1 * share * still
    left = np.hstack([-2 * x_ID, alone_I1, np.ones_like(a_I1), a_I1])
    right = np.hstack([y_JD, np.ones_like(b_J1), alone_J1, -share / 2 * b_J1])
    excess_IJ: NDArray[np.float32] = left @ right.T
    return excess_IJ
