"""The features of one log-mel crop: five blocks that need no training, a sixth by a dictionary of patches, and
musicnn's embedding where its weights are given.

A track's features are the mean over its crops: the same crops of the same length in training and in tagging.

Axes: F frames, M mel bands, D features, V values of a patch.
"""

import numpy as np
from numpy.typing import NDArray

from preprocessing.decode.settings import WindowSettings
from preprocessing.decode.windows import place_windows
from preprocessing.features.harmonicity import harmonic_percussive_levels
from preprocessing.features.musicnn import Musicnn
from preprocessing.features.patches import PatchDictionary, encode_patches
from preprocessing.features.rhythm import fluctuation_pattern
from preprocessing.features.scattering import scatter
from preprocessing.features.spectral_shape import cepstral_covariance, frame_statistics
from preprocessing.mel.filters import band_centres_hz
from preprocessing.mel.settings import MelSettings

WINDOWS = WindowSettings()  # of a track in training: those that tagging decodes by default
CROP_S = WINDOWS.length_s
MUSICNN_BLOCK = "musicnn"
DYNAMIC_RANGE_DB = 80.0  # below the loudest cell of a crop; what lies lower depends on the codec


def count_crops(frames: int, crop_frames: int) -> int:
    """Return how many crops a window gives: they are spaced evenly and hardly overlap."""
    return max(1, frames // crop_frames)


def place_crops(frames: int, mel: MelSettings) -> list[tuple[int, int]]:
    """Return first frame and length of each crop of a track."""
    crop_frames = mel.count_frames(CROP_S)
    crops = []
    for window in place_windows(frames, WINDOWS, mel):
        length = min(crop_frames, window.frames)
        count = count_crops(window.frames, crop_frames)
        last_start = window.frames - length
        shares = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
        crops += [(window.start + round(last_start * share), length) for share in shares.tolist()]
    return crops


def limit_dynamic_range(mel_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    """Raise what lies too far below the loudest cell. Shapes: (F, M) in dB -> (F, M)."""
    return np.asarray(np.maximum(mel_FM, mel_FM.max() - DYNAMIC_RANGE_DB), np.float32)


def compute_blocks(
    mel_FM: NDArray[np.float32], mel: MelSettings, musicnn: Musicnn | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return the blocks that need no dictionary, by name. Shapes: (F, M) in dB, each (D_i,)."""
    frames_per_s = mel.sample_rate_hz / mel.hop
    limited_FM = limit_dynamic_range(mel_FM)
    blocks = {
        "scattering": scatter(limited_FM, frames_per_s),
        "statistics": frame_statistics(limited_FM, band_centres_hz(mel)),
        "covariance": cepstral_covariance(limited_FM),
        "rhythm": fluctuation_pattern(limited_FM, frames_per_s),
        "harmonicity": harmonic_percussive_levels(limited_FM),
    }
    return blocks if musicnn is None else blocks | {MUSICNN_BLOCK: musicnn.embed(mel_FM)}


def compute_patch_block(mel_FM: NDArray[np.float32], dictionary: PatchDictionary) -> NDArray[np.float32]:
    """Return the block that needs a dictionary. Shapes: (F, M) in dB -> (D_i,)."""
    return encode_patches(limit_dynamic_range(mel_FM), dictionary)
