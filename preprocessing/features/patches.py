"""A dictionary of small log-mel patches, and how much of each atom a crop has.

Axes: F frames, M mel bands, P patches, V values of a patch, C principal components, A atoms.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

PATCH_FRAMES = 8  # pairs of frames
COMPONENTS, ATOMS, ITERATIONS = 100, 400, 12
MIN_PATCHES_PER_ATOM = 4
WHITENING_FLOOR = 0.005  # of the largest variance, added to each: weak components are mostly noise
CONTRAST_FLOOR_DB = 1.0  # added to a patch's standard deviation


@dataclass(frozen=True)
class PatchDictionary:
    """The mean patch, the whitening transform and the atoms of unit norm."""

    mean_V: NDArray[np.float32]
    whitening_VC: NDArray[np.float32]
    atoms_AC: NDArray[np.float32]

    @property
    def features(self) -> int:
        """The number of features of a crop."""
        return 2 * len(self.atoms_AC)


def extract_patches(mel_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return all patches of a crop, each normalised in level and contrast. Shapes: (F, M) in dB -> (P, V)."""
    if len(mel_FM) < 2 * PATCH_FRAMES:
        mel_FM = mel_FM[np.arange(2 * PATCH_FRAMES) % len(mel_FM)]
    frames, bands = (size // 2 * 2 for size in mel_FM.shape)
    half_FM = mel_FM[:frames, :bands].reshape(frames // 2, 2, bands // 2, 2).mean(axis=(1, 3))
    windows = np.lib.stride_tricks.sliding_window_view(half_FM, PATCH_FRAMES, axis=0)
    patch_PV = windows.reshape(len(windows), -1)
    centred_PV = patch_PV - patch_PV.mean(axis=1, keepdims=True)
    return np.asarray(centred_PV / (centred_PV.std(axis=1, keepdims=True) + CONTRAST_FLOOR_DB))


def fit_dictionary(patch_PV: NDArray[np.float32], seed: int) -> PatchDictionary:
    """Fit principal components and atoms by spherical k-means.

    Source: Coates and Ng, "Learning feature representations with k-means" (2012); Dieleman and Schrauwen (2013).
    """
    mean_V = patch_PV.mean(axis=0)
    centred_PV = patch_PV - mean_V
    variance, vector_VV = np.linalg.eigh(centred_PV.T @ centred_PV / len(centred_PV))
    variance_C, vector_VC = variance[::-1][:COMPONENTS], vector_VV[:, ::-1][:, :COMPONENTS]
    whitening_VC = (vector_VC / np.sqrt(variance_C.clip(0) + WHITENING_FLOOR * variance_C[0])).astype(
        np.float32
    )
    white_PC = _unit_norm(centred_PV @ whitening_VC)
    atoms = max(1, min(ATOMS, len(white_PC) // MIN_PATCHES_PER_ATOM))
    return PatchDictionary(mean_V, whitening_VC, _spherical_k_means(white_PC, atoms, seed))


def encode_patches(mel_FM: NDArray[np.float32], dictionary: PatchDictionary) -> NDArray[np.float32]:
    """Return mean and maximum of each atom's activation. Shapes: (F, M) in dB -> (2 A,).

    An atom is active by as much as its similarity to a patch exceeds that of most atoms.
    """
    white_PC = _unit_norm((extract_patches(mel_FM) - dictionary.mean_V) @ dictionary.whitening_VC)
    similarity_PA = white_PC @ dictionary.atoms_AC.T
    threshold_P1 = similarity_PA.mean(axis=1, keepdims=True) + similarity_PA.std(axis=1, keepdims=True)
    active_PA = np.maximum(similarity_PA - threshold_P1, 0)
    return np.concatenate([np.sqrt(active_PA.mean(axis=0)), active_PA.max(axis=0)]).astype(np.float32)


def _spherical_k_means(white_PC: NDArray[np.float32], atoms: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    atoms_AC = white_PC[rng.choice(len(white_PC), atoms, replace=False)]
    for _ in range(ITERATIONS):
        nearest_P = (white_PC @ atoms_AC.T).argmax(axis=1)
        chosen_AP = scipy.sparse.csr_array(
            (np.ones(len(nearest_P), np.float32), (nearest_P, np.arange(len(nearest_P)))),
            (atoms, len(nearest_P)),
        )
        sums_AC = np.asarray(chosen_AP @ white_PC)
        is_empty_A = np.bincount(nearest_P, minlength=atoms) == 0
        sums_AC[is_empty_A] = white_PC[rng.choice(len(white_PC), int(is_empty_A.sum()))]
        atoms_AC = _unit_norm(sums_AC)
    return atoms_AC


def _unit_norm(values: NDArray[np.floating]) -> NDArray[np.float32]:
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norm, np.finfo(np.float32).tiny), np.float32)
