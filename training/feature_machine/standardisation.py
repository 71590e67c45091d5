"""The standardisation of features, and how much each of them counts in the kernel.

Axes: T tracks, D features, G genres, A pairs of an artist and the genres of a track.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from preprocessing.features.crop_features import MUSICNN_BLOCK

Value = TypeVar("Value", bound=np.generic)
LOG_BLOCK = "scattering"  # its features are levels: their logarithm is taken
LOG_OFFSET_SHARE = 0.1  # of the training median, added before
MAX_Z = 5.0
MIN_RELATIVE_STD = 1e-6
SEPARATION_PRIOR = 3.0  # added to each F statistic: with few artists it is mostly noise
MAX_DISTANCE_TRACKS = 500  # for the mean distance of a block
MUSICNN_SHARE = 0.5  # of the distance between two tracks; the other blocks share the rest evenly


@dataclass(frozen=True)
class Standardisation:
    """What is subtracted from each feature, and what it is multiplied by: 0 for one that is constant."""

    log_offset_D: NDArray[np.float32]  # 0 where no logarithm is taken
    mean_D: NDArray[np.float32]
    scale_D: NDArray[np.float32]
    weight_D: NDArray[np.float32]  # such that the mean L1 distance of each block is its share

    def apply(self, features_TD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features whose L1 distance is the kernel's. Shapes: (T, D) -> (T, D)."""
        values_TD = _log_where_offset(features_TD, self.log_offset_D)
        z_TD = (values_TD - self.mean_D) * self.scale_D
        return np.asarray(z_TD.clip(-MAX_Z, MAX_Z) * self.weight_D, np.float32)


def fit_standardisation(
    features_TD: NDArray[np.float32],
    target_TG: NDArray[np.float64],
    artist_T: NDArray[np.int64],
    block_sizes: Mapping[str, int],
    seed: int,
) -> Standardisation:
    """Fit on training tracks. `block_sizes` are the blocks in the order of the features.

    Within a block a feature counts by how well it separates the genres of artists.
    """
    log_offset_D = np.zeros(features_TD.shape[1], np.float32)
    blocks = _block_slices(block_sizes)
    if LOG_BLOCK in blocks:
        offset = LOG_OFFSET_SHARE * np.median(features_TD[:, blocks[LOG_BLOCK]], axis=0)
        log_offset_D[blocks[LOG_BLOCK]] = np.maximum(offset, np.finfo(np.float32).tiny)
    values_TD = _log_where_offset(features_TD, log_offset_D)
    mean_D, std_D = values_TD.mean(axis=0), values_TD.std(axis=0)
    varies_D = std_D > MIN_RELATIVE_STD * np.maximum(1, np.abs(mean_D))
    scale_D = np.divide(1, std_D, out=np.zeros_like(std_D), where=varies_D)
    z_TD = Standardisation(log_offset_D, mean_D, scale_D, np.ones_like(mean_D)).apply(features_TD)
    weight_D = SEPARATION_PRIOR + np.maximum(genre_separation(z_TD, target_TG, artist_T) - 1, 0)
    sample_TD = sample_tracks(z_TD, MAX_DISTANCE_TRACKS, seed) * weight_D
    for name, share in _block_shares(list(blocks)).items():
        block = blocks[name]
        distance = cdist(sample_TD[:, block], sample_TD[:, block], "cityblock").mean()
        weight_D[block] *= share / distance if distance > 0 else 0
    return Standardisation(log_offset_D, mean_D, scale_D, weight_D.astype(np.float32))


def genre_separation(
    values_TD: NDArray[np.float32], target_TG: NDArray[np.float64], artist_T: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the F statistic of each feature, between genres over within them; about 1 for noise, 1 if undefined.

    Shapes: (T, D), (T, G) of 0 and 1, (T,) -> (D,).
    Source: one-way analysis of variance (Fisher, 1925); for tracks of several genres the same by regression.

    The unit is an artist, since tracks of an artist resemble each other in much that has nothing to do with genre.
    """
    pairs = np.concatenate([artist_T[:, None], target_TG], axis=1)
    pair_AG, index_T = np.unique(pairs, axis=0, return_inverse=True)
    is_of_AT = scipy.sparse.csr_array(
        (np.ones(len(values_TD)), (index_T.ravel(), np.arange(len(values_TD)))),
        (len(pair_AG), len(values_TD)),
    )
    mean_AD = is_of_AT @ values_TD / is_of_AT.sum(axis=1)[:, None]
    centred_AD = mean_AD - mean_AD.mean(axis=0)
    genre_AG = pair_AG[:, 1:] - pair_AG[:, 1:].mean(axis=0)
    basis_AK = _orthonormal_basis(genre_AG)
    between, within = basis_AK.shape[1], len(pair_AG) - 1 - basis_AK.shape[1]
    if between < 1 or within < 1:
        return np.ones(values_TD.shape[1])
    explained_D = ((basis_AK.T @ centred_AD) ** 2).sum(axis=0)
    rest_D = np.maximum((centred_AD**2).sum(axis=0) - explained_D, np.finfo(np.float32).eps * explained_D)
    ratio_D = np.divide(explained_D * within, rest_D * between, out=np.ones_like(rest_D), where=rest_D > 0)
    return np.asarray(ratio_D)


def sample_tracks(values_T: NDArray[Value], count: int, seed: int) -> NDArray[Value]:
    """Return so many rows, drawn at random, in their order; or all. Shapes: (T, ...)."""
    if len(values_T) <= count:
        return values_T
    rows = np.random.default_rng(seed).choice(len(values_T), count, replace=False)
    return np.asarray(values_T[np.sort(rows)])


def _orthonormal_basis(columns_AG: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a basis of what the columns span. Shapes: (A, G) -> (A, K), K their rank."""
    left_AG, singular_G, _ = np.linalg.svd(columns_AG, full_matrices=False)
    tolerance = singular_G.max(initial=0) * max(columns_AG.shape) * np.finfo(np.float64).eps
    return np.asarray(left_AG[:, singular_G > tolerance])


def _log_where_offset(
    features_TD: NDArray[np.float32], log_offset_D: NDArray[np.float32]
) -> NDArray[np.float32]:
    is_level_D = log_offset_D > 0
    values_TD = features_TD.copy()
    values_TD[:, is_level_D] = np.log(features_TD[:, is_level_D] + log_offset_D[is_level_D])
    return values_TD


def _block_shares(names: list[str]) -> dict[str, float]:
    """Return the share of each block in the mean distance between two tracks."""
    if MUSICNN_BLOCK not in names or len(names) == 1:
        return dict.fromkeys(names, 1 / len(names))
    return dict.fromkeys(names, (1 - MUSICNN_SHARE) / (len(names) - 1)) | {MUSICNN_BLOCK: MUSICNN_SHARE}


def _block_slices(block_sizes: Mapping[str, int]) -> dict[str, slice]:
    stops = np.cumsum(list(block_sizes.values())).tolist()
    return {
        name: slice(stop - size, stop) for (name, size), stop in zip(block_sizes.items(), stops, strict=True)
    }
