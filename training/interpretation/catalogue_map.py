"""The positions of tracks on a map: tracks that sound alike are near each other.

Axes: T tracks, D features.
"""

import numpy as np
from numpy.typing import NDArray

PERPLEXITY = 30.0  # about the number of neighbours that a track is kept near
MIN_TSNE_TRACKS = 8  # with fewer there is no neighbourhood to keep: they are projected


def place_on_map(features_TD: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Return two coordinates for each track, each from 0 to 1.

    Shapes: (T, D) -> (T, 2).
    Source: t-SNE (van der Maaten and Hinton, 2008), started from the principal components
        (Kobak and Berens, 2019).
    """
    if len(features_TD) < MIN_TSNE_TRACKS:
        return _to_unit_square(project_on_components(features_TD))
    from sklearn.manifold import TSNE  # its import costs a second

    start_T2 = project_on_components(features_TD)
    start_T2 *= 1e-4 / max(float(start_T2[:, 0].std()), 1e-12)
    perplexity = min(PERPLEXITY, (len(features_TD) - 1) / 3)
    layout = TSNE(metric="cityblock", init=start_T2, perplexity=perplexity, random_state=seed, n_jobs=1)
    return _to_unit_square(np.asarray(layout.fit_transform(features_TD), np.float64))


def project_on_components(features_TD: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the first two principal components of each track; 0 for what there is none of. Shapes: (T, 2)."""
    centred_TD = features_TD.astype(np.float64) - features_TD.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred_TD, full_matrices=False)
    found = (left * sizes)[:, :2]
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _to_unit_square(position_T2: NDArray[np.float64]) -> NDArray[np.float64]:
    low_2, extent = position_T2.min(axis=0), np.ptp(position_T2, axis=0).max()
    return np.asarray((position_T2 - low_2) / max(float(extent), 1e-12))
