"""What a model predicts for the other tracks of the same album or artist.

Axes: T tracks, G genres.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def mean_of_others(values_TG: NDArray[np.float64], groups: Sequence[str | None]) -> NDArray[np.float64]:
    """Return for each track the mean of the other tracks of its group; 0 for one without others.

    Shapes: (T, G) -> (T, G).
    """
    index_of = {name: index for index, name in enumerate(dict.fromkeys(groups)) if name is not None}
    group_T = np.array([index_of.get(name, -1) if name is not None else -1 for name in groups], np.int64)
    is_in_T = group_T >= 0
    size = int(group_T.max(initial=-1)) + 1
    sum_NG, tracks_N = np.zeros((size, values_TG.shape[1])), np.bincount(group_T[is_in_T], minlength=size)
    np.add.at(sum_NG, group_T[is_in_T], values_TG[is_in_T])
    found_TG = np.zeros_like(values_TG)
    others_T = np.where(is_in_T, tracks_N[group_T] - 1, 0) if size else np.zeros(len(groups), np.int64)
    rows = np.flatnonzero(others_T > 0)
    found_TG[rows] = (sum_NG[group_T[rows]] - values_TG[rows]) / others_T[rows, None]
    return found_TG
