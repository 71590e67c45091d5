"""Acoustic fingerprints of 64 bytes: copies in another format, level or padding have similar ones.

Axes: F frames, M mel bands, G groups of bands, N cells of time, S segments of time, T waves along
time, B waves along the bands, P pairs of tracks, D digits of a fingerprint.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FINGERPRINT_BYTES = 64
STRIDE = 2  # frames overlap so much that every other one is enough
BLOCK_FRAMES = 256  # at 128 bands they fit into the L2 cache
MAX_CELLS = 2_048  # a multiple of BLOCK_FRAMES, and even
BAND_SHARE = 0.8  # of the mel bands: encoders at low bit rates remove the highest
GROUPS, SEGMENTS = 16, 64  # the size of the coarse spectrogram
TIME_WAVES, BAND_WAVES = 16, 4  # coefficients of its cosine transform that are kept
DYNAMIC_RANGE_DB = 40.0  # encoders remove or add what is further below the loudest part
EDGE_SHARE = 1e-4  # of the energy, which is ignored at either end: padding, near-silence
MIN_POWER = 1e-12
EXP2_PER_DB = np.float32(np.log2(10) / 10)

# The spread of songs in each coefficient, in dB rms, measured on 380 clips and smoothed: about 12 digits.
_SPREAD_TB = np.outer(2 / np.sqrt(np.maximum(np.arange(TIME_WAVES), 1)), [1.0, 0.42, 0.36, 0.27])
_SPREAD_TB[0] = [1.0, 3.2, 2.1, 1.3]
STEP_DB: NDArray[np.float32] = (_SPREAD_TB.ravel() / 16).astype(np.float32)
SPECTRUM = slice(1, BAND_WAVES)  # the digits of the mean spectrum
MODULATION = slice(BAND_WAVES, None)  # those of its changes in time

# Copies are below both limits, other songs above one of them; measured, see DECISIONS.md.
MAX_SPECTRUM_DISTANCE_DB = 0.8
MAX_MODULATION_DISTANCE = 0.5
MODULATION_OFFSET = 4.0  # a drone hardly changes: what encoders add to it must not count as a change


class Fingerprinter:
    """Computes the fingerprint of a log-mel spectrogram that comes in blocks.

    Source: own. The purpose is Chromaprint's (Lalinský, 2010); energies over time and bands are
        those of Haitsma and Kalker (2002), the low cosine coefficients those of pHash.

    Powers are added up in cells of time. When there are too many, neighbours are joined: a
    track of five hours needs the 400 KiB that one of a minute needs.
    """

    def __init__(self) -> None:
        self._cells_NG = np.zeros((MAX_CELLS, GROUPS))
        self._frames_per_cell = 1
        self._frames_in_cells = 0
        self._bands = 0
        self._waiting_FM = np.empty((0, 0), np.float32)
        self._frames_waiting = 0
        self._skip = 0

    def add(self, mel_FM: NDArray[np.float32]) -> None:
        """Add the next frames.

        Shapes: (F, M), M the same in all calls.
        Units:  dB.
        """
        self._bands = mel_FM.shape[1]
        used_bands = len(_band_groups(self._bands))
        if not self._waiting_FM.size:
            self._waiting_FM = np.empty((BLOCK_FRAMES, used_bands), np.float32)
        taken_FM = mel_FM[self._skip :: STRIDE, :used_bands]
        self._skip = (self._skip - len(mel_FM)) % STRIDE
        while len(taken_FM):
            first = self._frames_waiting
            now_FM = taken_FM[: BLOCK_FRAMES - first]
            # Copied and scaled in one pass: 10 ** (dB / 10) is 2 ** this.
            np.multiply(now_FM, EXP2_PER_DB, out=self._waiting_FM[first : first + len(now_FM)])
            self._frames_waiting += len(now_FM)
            taken_FM = taken_FM[len(now_FM) :]
            if self._frames_waiting == BLOCK_FRAMES:
                self._fill_cells()

    def digest(self) -> bytes:
        """Return the fingerprint: 64 signed digits, of which the first, the level, is 0.

        No frames may be added afterwards.
        """
        self._fill_cells()
        if self._frames_in_cells == 0:
            return bytes(FINGERPRINT_BYTES)
        cells = -(-self._frames_in_cells // self._frames_per_cell)
        frame_N = np.minimum(np.arange(cells + 1) * self._frames_per_cell, self._frames_in_cells)
        until_NG = np.zeros((cells + 1, GROUPS))
        np.cumsum(self._cells_NG[:cells], axis=0, out=until_NG[1:])
        time_TS, band_GB = _waves()
        waves_TB = time_TS @ _coarse_spectrogram(until_NG, frame_N) @ band_GB
        digits_D = np.rint(waves_TB.ravel() / STEP_DB)
        digits_D[0] = 0  # the level
        return np.clip(digits_D, -127, 127).astype(np.int8).tobytes()

    def _fill_cells(self) -> None:
        """Add the power of the waiting frames to the cells."""
        waiting_FM = self._waiting_FM[: self._frames_waiting]
        self._frames_waiting = 0
        if not len(waiting_FM):
            return
        np.exp2(waiting_FM, out=waiting_FM)
        power_FG = waiting_FM @ _band_groups(self._bands)
        if self._frames_in_cells + len(power_FG) > MAX_CELLS * self._frames_per_cell:
            self._join_cells()
        # Both lengths are powers of two, so cells never straddle blocks unless they consist of whole ones.
        first = self._frames_in_cells // self._frames_per_cell
        joined = min(self._frames_per_cell, BLOCK_FRAMES)
        whole = len(power_FG) // joined * joined
        cells_NG = np.einsum("nfg->ng", power_FG[:whole].reshape(-1, joined, GROUPS))
        self._cells_NG[first : first + len(cells_NG)] += cells_NG
        if whole < len(power_FG):
            self._cells_NG[first + len(cells_NG)] += power_FG[whole:].sum(axis=0)
        self._frames_in_cells += len(power_FG)

    def _join_cells(self) -> None:
        half = MAX_CELLS // 2
        self._cells_NG[:half] = self._cells_NG[::2] + self._cells_NG[1::2]
        self._cells_NG[half:] = 0
        self._frames_per_cell *= 2


def fingerprint_distances(
    first_PD: NDArray[np.int8], second_PD: NDArray[np.int8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the distances of fingerprints, row by row: of the mean spectra, and of the modulations.

    Shapes: (P, 64), (P, 64) -> (P,), (P,).
    Units:  dB rms; and a share of the modulations' mean norm: 0 for the same, about 1.4 for two songs.

    It is a share, since in dB all slow music is similar. A drone has almost no modulation: there
    the spectrum alone decides.
    """
    difference_PD = first_PD.astype(np.float32) - second_PD
    mean_norm_P = np.float32(0.5) * (modulation_norm(first_PD) + modulation_norm(second_PD))
    scale_P = mean_norm_P + np.float32(MODULATION_OFFSET)
    return _length(difference_PD[:, SPECTRUM] * STEP_DB[SPECTRUM]), modulation_norm(difference_PD) / scale_P


def match_fingerprints(first_PD: NDArray[np.int8], second_PD: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return, row by row, whether two fingerprints are of one recording. Shapes: (P, 64), (P, 64) -> (P,)."""
    spectrum_db_P, modulation_P = fingerprint_distances(first_PD, second_PD)
    return (spectrum_db_P <= MAX_SPECTRUM_DISTANCE_DB) & (modulation_P <= MAX_MODULATION_DISTANCE)


def modulation_norm(digits_PD: NDArray[np.int8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the norm of the modulations, each coefficient by its spread among songs. Units: digits."""
    return _length(digits_PD[:, MODULATION].astype(np.float32))


def _length(vectors_PD: NDArray[np.float32]) -> NDArray[np.float32]:
    length_P: NDArray[np.float32] = np.sqrt(np.einsum("pd,pd->p", vectors_PD, vectors_PD))
    return length_P


def _coarse_spectrogram(until_NG: NDArray[np.float64], frame_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the level over time and bands, from the first sound to the last.

    Shapes: (N, G) the energy up to each of (N,) frames -> (S, G).
    Units:  dB.
    """
    all_N = until_NG.sum(axis=1)
    ends = np.interp([EDGE_SHARE * all_N[-1], (1 - EDGE_SHARE) * all_N[-1]], all_N, frame_N)
    edge_S = np.linspace(ends[0], ends[1], SEGMENTS + 1)
    cell_S = np.searchsorted(frame_N, edge_S, side="right").clip(1, len(frame_N) - 1) - 1
    share_S = (edge_S - frame_N[cell_S]) / (frame_N[cell_S + 1] - frame_N[cell_S])
    until_SG = until_NG[cell_S] + share_S[:, None] * (until_NG[cell_S + 1] - until_NG[cell_S])
    power_SG = np.diff(until_SG, axis=0) / (edge_S[1] - edge_S[0])
    level_SG: NDArray[np.float64] = 10 * np.log10(np.maximum(power_SG, MIN_POWER))
    np.maximum(level_SG, level_SG.max() - DYNAMIC_RANGE_DB, out=level_SG)
    return level_SG


@lru_cache(maxsize=8)
def _band_groups(bands: int) -> NDArray[np.float32]:
    """Return the weights that average the used bands in groups of equal width, dividing bands where needed.

    Shapes: (M, G), M only the used bands.
    """
    edge_G = np.linspace(0, BAND_SHARE * bands, GROUPS + 1)
    band_M = np.arange(int(np.ceil(edge_G[-1])))[:, None]
    shares_MG = np.minimum(band_M + 1, edge_G[1:]) - np.maximum(band_M, edge_G[:-1])
    means_MG: NDArray[np.float32] = (np.maximum(shares_MG, 0) / np.diff(edge_G)).astype(np.float32)
    return means_MG


@lru_cache(maxsize=1)
def _waves() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cosine waves along time and along the bands, each of one dB rms."""
    time_TS = _cosines(TIME_WAVES, SEGMENTS) / np.sqrt(SEGMENTS)
    band_BG = _cosines(BAND_WAVES, GROUPS) / np.sqrt(GROUPS)
    return time_TS, band_BG.T


def _cosines(waves: int, length: int) -> NDArray[np.float64]:
    """Return the first rows of the orthonormal DCT-II; scipy has it too, but takes half a second to import."""
    angles = np.pi / length * np.outer(np.arange(waves), np.arange(length) + 0.5)
    scale_T1 = np.sqrt(np.where(np.arange(waves)[:, None] == 0, 1.0, 2.0) / length)
    return np.asarray(scale_T1 * np.cos(angles))
