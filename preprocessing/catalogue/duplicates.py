"""Duplicates: tracks that are the same recording, as the same file or as another encoding of it.

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

MAX_DURATION_DIFFERENCE_S = 1.5  # encoders pad, and add delays
LEAF_TRACKS = 256  # tracks of similar spectrum that are compared with others together
TILE_TRACKS = 8_192  # tracks that a leaf is compared with at once: 8 MiB of float32
# `_excess` must not lose a copy to rounding; `match_fingerprints` decides. Its 63 products, in all at most 2 m^2 for a
# mean norm of m, err in float32 by at most 64 eps 2 m^2 = 1.6e-5 m^2; this adds 2e-3 s^2 m^2 = 5e-4 m^2 to the limit.
ROUNDING_MARGIN = 1.001
PAIRS_PER_BATCH = 1 << 15  # pairs that `match_fingerprints` compares at once

Rows = NDArray[np.int64]


def add_duplicate_groups(catalogue: pa.Table, index_rows: pa.Table) -> pa.Table:
    """Fill a catalogue's column `duplicate_group`: the track_id of the first track of each group of copies.

    Shapes: `index_rows` has a row for each of the catalogue's, in its order, with sha256, fingerprint
        and decoded_s, null where the track was rejected or never tried.

    "First" is in the catalogue's order, which is that of track_id. A track without a copy has null.
    """
    assert len(index_rows) == len(catalogue)
    least_T = group_duplicates(index_rows["sha256"], index_rows["fingerprint"], index_rows["decoded_s"])
    is_alone_T = np.bincount(least_T, minlength=len(least_T))[least_T] == 1
    names = catalogue["track_id"].take(pa.array(least_T, mask=is_alone_T))
    column = catalogue.schema.get_field_index("duplicate_group")
    if column < 0:
        return catalogue.append_column("duplicate_group", names)
    return catalogue.set_column(column, "duplicate_group", names)


def group_duplicates(
    sha256: pa.ChunkedArray, fingerprints: pa.ChunkedArray, durations_s: pa.ChunkedArray
) -> NDArray[np.int64]:
    """Find the tracks that are the same recording.

    Shapes: T rows of binary(32), binary(64) and float64, each null where unknown -> (T,): the least
        row of each track's group, its own row if it is the only one.

    Files of equal content are copies. So are tracks of similar duration whose fingerprints
    match. Copies of a copy are in one group, even if the first and the last do not match.
    """
    groups = _Groups(len(sha256))
    rows_K, content_KD = _known_bytes(sha256)
    groups.link(*_equal_pairs(rows_K, content_KD))
    rows_K, digits_KD = _known_bytes(fingerprints)
    seconds_T = durations_s.to_numpy().astype(np.float64)  # null becomes NaN, which compares as false
    _link_matches(groups, rows_K, digits_KD.view(np.int8), seconds_T[rows_K])
    return groups.least()


class _Groups:
    """A union-find of rows; a group is identified by its least row."""

    def __init__(self, rows: int) -> None:
        self._lesser_T = np.arange(rows)

    def find(self, rows_P: Rows) -> Rows:
        """Return the least row of each row's group, by the links so far."""
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
        roots_R, positions = np.unique(ends, return_inverse=True)
        links = (np.ones(len(first_P), dtype=np.int8), positions.reshape(2, -1))
        graph = coo_array(links, shape=(len(roots_R), len(roots_R)))
        _, joined_R = connected_components(graph, directed=False)
        _, first_R = np.unique(joined_R, return_index=True)  # roots are sorted: the first is the least
        self._lesser_T[roots_R] = roots_R[first_R[joined_R]]

    def least(self) -> Rows:
        return self.find(np.arange(len(self._lesser_T)))


def _known_bytes(column: pa.ChunkedArray) -> tuple[Rows, NDArray[np.uint8]]:
    """Return the rows of a column of fixed-size binary that are not null, and their bytes."""
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


def _link_matches(
    groups: _Groups, rows_K: Rows, digits_KD: NDArray[np.int8], seconds_K: NDArray[np.float64]
) -> None:
    """Join all rows whose fingerprints match and whose durations are similar.

    Tracks that are in one group already are not compared again: a hundred thousand drones that all
    match each other take some seconds, and no more memory than other tracks.
    """
    for leaf, window in _tiles(digits_KD[:, SPECTRUM] * STEP_DB[SPECTRUM]):
        root_I, root_J = groups.find(rows_K[leaf]), groups.find(rows_K[window])
        if root_I.min() == root_I.max() == root_J.min() == root_J.max():
            continue
        is_near_IJ = _excess(digits_KD[leaf], digits_KD[window]) <= 0
        if np.count_nonzero(is_near_IJ) > PAIRS_PER_BATCH:  # rare, and then most are in one group already
            is_near_IJ &= root_I[:, None] != root_J
        near = np.flatnonzero(is_near_IJ)
        for first in range(0, len(near), PAIRS_PER_BATCH):
            i, j = np.divmod(near[first : first + PAIRS_PER_BATCH], len(window))
            first_P, second_P = leaf[i], window[j]
            is_open_P = np.abs(seconds_K[first_P] - seconds_K[second_P]) <= MAX_DURATION_DIFFERENCE_S
            is_open_P &= groups.find(rows_K[first_P]) != groups.find(rows_K[second_P])
            first_P, second_P = first_P[is_open_P], second_P[is_open_P]
            is_match_P = match_fingerprints(digits_KD[first_P], digits_KD[second_P])
            groups.link(rows_K[first_P[is_match_P]], rows_K[second_P[is_match_P]])


def _tiles(spectrum_KD: NDArray[np.float32]) -> Iterator[tuple[Rows, Rows]]:
    """Yield all pairs of tracks of similar spectrum, as a few hundred tracks against a few thousand at a time.

    Tracks are divided into leaves of similar spectrum; each leaf is paired with itself and the later
    leaves whose bounding boxes are within the distance. So no pair within the distance is missed.
    """
    leaves = list(_leaves(np.arange(len(spectrum_KD)), spectrum_KD))
    lowest_LD = np.array([spectrum_KD[leaf].min(axis=0) for leaf in leaves])
    highest_LD = np.array([spectrum_KD[leaf].max(axis=0) for leaf in leaves])
    for number, leaf in enumerate(leaves):
        gap_LD = np.maximum(lowest_LD[number:] - highest_LD[number], lowest_LD[number] - highest_LD[number:])
        apart_L = np.sqrt(np.square(np.maximum(gap_LD, 0)).sum(axis=1))
        reached = number + np.flatnonzero(apart_L <= MAX_SPECTRUM_DISTANCE_DB * ROUNDING_MARGIN)
        others = np.concatenate([leaves[other] for other in reached])
        for start in range(0, len(others), TILE_TRACKS):
            yield leaf, others[start : start + TILE_TRACKS]


def _leaves(rows: Rows, spectrum_KD: NDArray[np.float32]) -> Iterator[Rows]:
    """Divide rows into leaves: halve them across the digit in which they differ most, and so on."""
    if len(rows) <= LEAF_TRACKS:
        if len(rows):
            yield rows
        return
    widest = int(np.ptp(spectrum_KD[rows], axis=0).argmax())
    halved = rows[np.argpartition(spectrum_KD[rows, widest], len(rows) // 2)]
    yield from _leaves(halved[: len(rows) // 2], spectrum_KD)
    yield from _leaves(halved[len(rows) // 2 :], spectrum_KD)


def _excess(first_ID: NDArray[np.int8], second_JD: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return, for all pairs, the squared distance of their modulations less the square of what copies may have.

    Shapes: (I, 64), (J, 64) -> (I, J), at most 0 for copies.

    With x and y the modulations, a and b their norms, s MAX_MODULATION_DISTANCE and c
    MODULATION_OFFSET, it is |x - y|^2 - s^2 ((a + b) / 2 + c)^2. Each term is a product of a factor
    of x and a factor of y, so one matrix product computes it for all pairs.
    """
    share, offset = np.float32(MAX_MODULATION_DISTANCE * ROUNDING_MARGIN) ** 2, np.float32(MODULATION_OFFSET)
    x_ID, y_JD = first_ID[:, MODULATION].astype(np.float32), second_JD[:, MODULATION].astype(np.float32)
    a_I1, b_J1 = modulation_norm(first_ID)[:, None], modulation_norm(second_JD)[:, None]
    of_x_I1 = a_I1**2 * (1 - share / 4) - a_I1 * share * offset - share * offset**2
    of_y_J1 = b_J1**2 * (1 - share / 4) - b_J1 * share * offset
    left = np.hstack([-2 * x_ID, of_x_I1, np.ones_like(a_I1), a_I1])
    right = np.hstack([y_JD, np.ones_like(b_J1), of_y_J1, -share / 2 * b_J1])
    excess_IJ: NDArray[np.float32] = left @ right.T
    return excess_IJ
