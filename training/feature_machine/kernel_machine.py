"""A kernel machine on blocks of features: from the features of tracks to the probabilities of genres.

Axes: T tracks, D features, N landmarks, G genres.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from training.evaluation.calibration import Target
from training.evaluation.probabilities import expit, softmax
from training.feature_machine.score_calibration import ScoreCalibration, fit_score_calibration

LOG_BLOCK = "scattering"  # its features are levels: their logarithm is taken
LOG_OFFSET_SHARE = 0.1  # of the training median, added before
MAX_Z = 5.0
MIN_RELATIVE_STD = 1e-6
SVM_C = 4.0
RIDGE = 0.1
MAX_LANDMARKS = 2_000  # the kernel of a tagged track takes 10 ms with so many


@dataclass(frozen=True)
class Standardisation:
    """What is subtracted from each feature, and what it is multiplied by: 0 for one that is constant."""

    log_offset_D: NDArray[np.float32]  # 0 where no logarithm is taken
    mean_D: NDArray[np.float32]
    scale_D: NDArray[np.float32]
    weight_D: NDArray[np.float32]  # such that the mean L1 distance of each block is equal

    def apply(self, features_TD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features whose L1 distance is the kernel's. Shapes: (T, D) -> (T, D)."""
        values_TD = _log_where_offset(features_TD, self.log_offset_D)
        z_TD = (values_TD - self.mean_D) * self.scale_D
        return np.asarray(z_TD.clip(-MAX_Z, MAX_Z) * self.weight_D, np.float32)


@dataclass(frozen=True)
class LinearHead:
    """A linear function of the kernel's values: above 0 for a genre that a track has."""

    weights_NG: NDArray[np.float64]
    bias_G: NDArray[np.float64]

    def scores(self, kernel_TN: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shapes: (T, N) -> (T, G)."""
        return np.asarray(kernel_TN @ self.weights_NG + self.bias_G)


@dataclass(frozen=True)
class KernelMachine:
    """A machine that was fitted. `landmarks_ND` are standardised features of training tracks."""

    standardisation: Standardisation
    landmarks_ND: NDArray[np.float32]
    head: LinearHead
    calibration: ScoreCalibration

    def predict(self, features_TD: NDArray[np.float32], target: Target) -> NDArray[np.float64]:
        """Return the probabilities of tracks. Shapes: (T, D) -> (T, G)."""
        kernel_TN = laplacian_kernel(self.standardisation.apply(features_TD), self.landmarks_ND)
        return to_probabilities(self.calibration.apply(self.head.scores(kernel_TN)), target)


def fit_standardisation(
    features_TD: NDArray[np.float32], block_sizes: Mapping[str, int], seed: int
) -> Standardisation:
    """Fit on training tracks. `block_sizes` are the blocks in the order of the features."""
    log_offset_D = np.zeros(features_TD.shape[1], np.float32)
    blocks = _block_slices(block_sizes)
    if LOG_BLOCK in blocks:
        offset = LOG_OFFSET_SHARE * np.median(features_TD[:, blocks[LOG_BLOCK]], axis=0)
        log_offset_D[blocks[LOG_BLOCK]] = np.maximum(offset, np.finfo(np.float32).tiny)
    values_TD = _log_where_offset(features_TD, log_offset_D)
    mean_D, std_D = values_TD.mean(axis=0), values_TD.std(axis=0)
    varies_D = std_D > MIN_RELATIVE_STD * np.maximum(1, np.abs(mean_D))
    scale_D = np.divide(1, std_D, out=np.zeros_like(std_D), where=varies_D)
    unweighted = Standardisation(log_offset_D, mean_D, scale_D, np.ones_like(mean_D))
    z_TD = unweighted.apply(_sample(features_TD, MAX_LANDMARKS, seed))
    weight_D = np.zeros_like(mean_D)
    for block in blocks.values():
        distance = cdist(z_TD[:, block], z_TD[:, block], "cityblock").mean()
        weight_D[block] = 1 / (len(blocks) * distance) if distance > 0 else 0
    return Standardisation(log_offset_D, mean_D, scale_D, weight_D)


def laplacian_kernel(one_TD: NDArray[np.float32], other_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return exp of minus the L1 distances. Shapes: (T, D), (N, D) -> (T, N)."""
    return np.asarray(np.exp(-cdist(one_TD, other_ND, "cityblock")))


def fit_machine(
    features_TD: NDArray[np.float32],
    target_TG: NDArray[np.float64],
    fold_T: NDArray[np.int64],
    block_sizes: Mapping[str, int],
    target: Target,
    seed: int,
) -> tuple[KernelMachine, NDArray[np.float64]]:
    """Fit on tracks; return the machine, and for each track the probabilities by a machine fitted on other folds.

    Shapes: (T, D), (T, G) of 0 and 1, (T,); the probabilities are (T, G).
    Source: up to 2,000 tracks a support-vector machine for each genre; beyond, kernel ridge regression with
        Nyström's approximation (Williams and Seeger, 2001), whose landmarks are 2,000 of the tracks.

    The folds share no artist. On the predictions across folds the calibration is fitted too. Standardisation
    and kernel, which see no label, are those of all tracks.
    """
    standardisation = fit_standardisation(features_TD, block_sizes, seed)
    z_TD = standardisation.apply(features_TD)
    landmarks_ND = _sample(z_TD, MAX_LANDMARKS, seed)
    kernel_TN, kernel_NN = laplacian_kernel(z_TD, landmarks_ND), laplacian_kernel(landmarks_ND, landmarks_ND)
    score_TG = np.zeros_like(target_TG)
    for fold in np.unique(fold_T):
        is_out_T = fold_T == fold
        head = _fit_head(kernel_TN, kernel_NN, target_TG, ~is_out_T)
        score_TG[is_out_T] = head.scores(kernel_TN[is_out_T])
    calibration = fit_score_calibration(score_TG, target_TG, target)
    head = _fit_head(kernel_TN, kernel_NN, target_TG, np.ones(len(z_TD), bool))
    machine = KernelMachine(standardisation, landmarks_ND, head, calibration)
    return machine, to_probabilities(calibration.apply(score_TG), target)


def to_probabilities(logits_TG: NDArray[np.float64], target: Target) -> NDArray[np.float64]:
    """Return the softmax where a track has one genre, else a sigmoid for each genre. Shapes: (T, G) -> (T, G)."""
    return softmax(logits_TG) if target == "top" else expit(logits_TG)


def _fit_head(
    kernel_TN: NDArray[np.float64],
    kernel_NN: NDArray[np.float64],
    target_TG: NDArray[np.float64],
    is_used_T: NDArray[np.bool_],
) -> LinearHead:
    if len(kernel_TN) == len(kernel_NN):
        return _fit_svm(kernel_NN, target_TG, is_used_T)
    return _fit_ridge(kernel_TN[is_used_T], kernel_NN, target_TG[is_used_T])


def _fit_svm(
    kernel_NN: NDArray[np.float64], target_TG: NDArray[np.float64], is_used_T: NDArray[np.bool_]
) -> LinearHead:
    """Fit one machine a genre, on some of the landmarks; the others get weight 0."""
    from sklearn.svm import SVC  # its import costs a second, and predicting needs none of it

    used = np.flatnonzero(is_used_T)
    weights_NG, bias_G = np.zeros(target_TG.shape), np.full(target_TG.shape[1], -1.0)
    for genre, has_T in enumerate(target_TG[used].T > 0):
        if has_T.all() or not has_T.any():
            bias_G[genre] = 1.0 if has_T.all() else -1.0
            continue
        machine = SVC(C=SVM_C, kernel="precomputed").fit(kernel_NN[np.ix_(used, used)], has_T)
        weights_NG[used[machine.support_], genre] = machine.dual_coef_[0]
        bias_G[genre] = machine.intercept_[0]
    return LinearHead(weights_NG, bias_G)


def _fit_ridge(
    kernel_TN: NDArray[np.float64], kernel_NN: NDArray[np.float64], target_TG: NDArray[np.float64]
) -> LinearHead:
    """Return the weights of least squared error and norm. Shapes: (T, N), (N, N), (T, G)."""
    left_NN = kernel_TN.T @ kernel_TN + RIDGE * kernel_NN
    left_NN[np.diag_indices_from(left_NN)] += 1e-9 * len(kernel_NN)  # copies of a recording are equal rows
    signs_TG = 2 * target_TG - 1
    weights_NG = scipy.linalg.solve(left_NN, kernel_TN.T @ signs_TG, assume_a="pos")
    return LinearHead(np.asarray(weights_NG), np.zeros(target_TG.shape[1]))


def _sample(values_TD: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    if len(values_TD) <= count:
        return values_TD
    rows = np.random.default_rng(seed).choice(len(values_TD), count, replace=False)
    return np.asarray(values_TD[np.sort(rows)])


def _log_where_offset(
    features_TD: NDArray[np.float32], log_offset_D: NDArray[np.float32]
) -> NDArray[np.float32]:
    is_level_D = log_offset_D > 0
    values_TD = features_TD.copy()
    values_TD[:, is_level_D] = np.log(features_TD[:, is_level_D] + log_offset_D[is_level_D])
    return values_TD


def _block_slices(block_sizes: Mapping[str, int]) -> dict[str, slice]:
    stops = np.cumsum(list(block_sizes.values())).tolist()
    return {
        name: slice(stop - size, stop) for (name, size), stop in zip(block_sizes.items(), stops, strict=True)
    }
