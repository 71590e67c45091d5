"""Labels swapped on purpose, by which an audit is measured: how many of them it finds, and how early.

Axes: T tracks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SwapRecall:
    """How many of the swapped labels are in the first part of the list."""

    swapped: int
    listed: int  # tracks in the first part of the list
    found: int

    @property
    def recall(self) -> float:
        """Return the share of the swapped labels that is in the first part of the list."""
        return self.found / self.swapped


def swap_labels(
    given_T: NDArray[np.int64], genres: int, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Replace a share of the labels, at least one, by another genre each; return them, and which were replaced."""
    random = np.random.default_rng(seed)
    rows = random.choice(len(given_T), max(1, round(share * len(given_T))), replace=False)
    labels_T, is_swapped_T = given_T.copy(), np.zeros(len(given_T), bool)
    labels_T[rows] = (given_T[rows] + random.integers(1, genres, len(rows))) % genres
    is_swapped_T[rows] = True
    return labels_T, is_swapped_T


def measure_recall(
    ranked_T: NDArray[np.int64], is_swapped_T: NDArray[np.bool_], first_share: float
) -> SwapRecall:
    """Count the swapped labels in the first share of a list of all tracks."""
    listed = max(1, round(first_share * len(ranked_T)))
    return SwapRecall(int(is_swapped_T.sum()), listed, int(is_swapped_T[ranked_T[:listed]].sum()))
