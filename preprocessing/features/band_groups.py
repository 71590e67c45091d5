"""Groups of neighbouring mel bands.

Axes: F frames, M mel bands, B groups of bands.
"""

import numpy as np
from numpy.typing import NDArray


def group_bands(values_FM: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """Return the mean of each group of neighbouring bands. Shapes: (F, M) -> (F, B).

    The groups have equal widths where that is possible; fewer bands than groups stay as they are.
    """
    bands = values_FM.shape[1]
    if bands % groups == 0:
        return np.asarray(values_FM.reshape(len(values_FM), groups, -1).mean(axis=2))
    starts = np.unique(np.arange(groups) * bands // groups)
    widths = np.diff(np.append(starts, bands)).astype(values_FM.dtype)
    return np.asarray(np.add.reduceat(values_FM, starts, axis=1) / widths)
