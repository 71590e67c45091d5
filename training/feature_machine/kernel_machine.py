"""A kernel machine on blocks of features: from the features of tracks to the probabilities of genres.

Axes: T tracks, D features, N landmarks, G genres.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from training.evaluation.calibration import Target
from training.evaluation.probabilities import expit, softmax
from training.feature_machine.score_calibration import ScoreCalibration, fit_score_calibration
from training.feature_machine.standardisation import Standardisation, fit_standardisation, sample_tracks

SVM_C = 4.0
RIDGE = 0.1
MAX_LANDMARKS = 2_000  # the kernel of a tagged track takes 10 ms with so many


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
        return to_probabilities(self.calibration.apply(self.scores(features_TD)), target)

    def scores(self, features_TD: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the scores of tracks, above 0 for a genre that a track has. Shapes: (T, D) -> (T, G)."""
        return self.head.scores(laplacian_kernel(self.standardisation.apply(features_TD), self.landmarks_ND))


def laplacian_kernel(one_TD: NDArray[np.float32], other_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return exp of minus the L1 distances. Shapes: (T, D), (N, D) -> (T, N)."""
    return np.asarray(np.exp(-cdist(one_TD, other_ND, "cityblock")))


def fit_machine(
    features_TD: NDArray[np.float32],
    target_TG: NDArray[np.float64],
    artist_T: NDArray[np.int64],
    fold_T: NDArray[np.int64],
    block_sizes: Mapping[str, int],
    target: Target,
    seed: int,
) -> tuple[KernelMachine, NDArray[np.float64]]:
    """Fit on tracks; return the machine, and for each track the probabilities by a machine fitted on other folds.

    Shapes: (T, D), (T, G) of 0 and 1, (T,), (T,); the probabilities are (T, G).
    Source: up to 2,000 tracks a support-vector machine for each genre; beyond, kernel ridge regression with
        Nyström's approximation (Williams and Seeger, 2001), whose landmarks are 2,000 of the tracks.

    The folds share no artist. On the predictions across folds the calibration is fitted too. Where all tracks are in
    one fold the genres are equally probable.
    """

    def fit(is_used_T: NDArray[np.bool_]) -> KernelMachine:
        used = features_TD[is_used_T], target_TG[is_used_T], artist_T[is_used_T]
        return _fit_uncalibrated(*used, block_sizes, seed)

    score_TG = np.zeros_like(target_TG)
    for fold in np.unique(fold_T) if len(np.unique(fold_T)) > 1 else ():
        score_TG[fold_T == fold] = fit(fold_T != fold).scores(features_TD[fold_T == fold])
    calibration = fit_score_calibration(score_TG, target_TG, target)
    machine = replace(fit(np.ones(len(features_TD), bool)), calibration=calibration)
    return machine, to_probabilities(calibration.apply(score_TG), target)


def to_probabilities(logits_TG: NDArray[np.float64], target: Target) -> NDArray[np.float64]:
    """Return the softmax where a track has one genre, else a sigmoid for each genre. Shapes: (T, G) -> (T, G)."""
    return softmax(logits_TG) if target == "top" else expit(logits_TG)


def _fit_uncalibrated(
    features_TD: NDArray[np.float32],
    target_TG: NDArray[np.float64],
    artist_T: NDArray[np.int64],
    block_sizes: Mapping[str, int],
    seed: int,
) -> KernelMachine:
    standardisation = fit_standardisation(features_TD, target_TG, artist_T, block_sizes, seed)
    z_TD = standardisation.apply(features_TD)
    landmarks_ND = sample_tracks(z_TD, MAX_LANDMARKS, seed)
    kernel_TN = laplacian_kernel(z_TD, landmarks_ND)
    if len(landmarks_ND) == len(z_TD):
        head = _fit_svm(kernel_TN, target_TG)
    else:
        head = _fit_ridge(kernel_TN, laplacian_kernel(landmarks_ND, landmarks_ND), target_TG)
    return KernelMachine(
        standardisation, landmarks_ND, head, ScoreCalibration(1.0, np.zeros(target_TG.shape[1]))
    )


def _fit_svm(kernel_NN: NDArray[np.float64], target_TG: NDArray[np.float64]) -> LinearHead:
    """Fit one machine a genre, whose landmarks are the tracks."""
    from sklearn.svm import SVC  # its import costs a second, and predicting needs none of it

    weights_NG, bias_G = np.zeros(target_TG.shape), np.full(target_TG.shape[1], -1.0)
    for genre, has_T in enumerate(target_TG.T > 0):
        if has_T.all() or not has_T.any():
            bias_G[genre] = 1.0 if has_T.all() else -1.0
            continue
        machine = SVC(C=SVM_C, kernel="precomputed").fit(kernel_NN, has_T)
        weights_NG[machine.support_, genre] = machine.dual_coef_[0]
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
