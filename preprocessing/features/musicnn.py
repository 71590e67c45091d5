"""musicnn's embedding of a log-mel crop: the last hidden layer of a network that was trained to predict tags of songs.

Axes: F frames, M mel bands, P positions along the bands, V values under a filter, C channels.

Source: Pons and Serra, "musicnn: Pre-trained convolutional neural networks for music audio tagging" (2019).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput

SETTING = "--training.model.musicnn"
MUSICNN_MEL = MelSettings(sample_rate_hz=16_000, window=512, hop=256, bands=96)
BUILD_FLAGS = (
    "--spectrogram.mel.sample-rate-hz 16000 --spectrogram.mel.window 512 --spectrogram.mel.hop 256 "
    "--spectrogram.mel.bands 96"
)
PATCH_FRAMES = 187  # 3 s, as in its training
COMPRESSION = 10_000.0  # its input is log10(1 + 10,000 x) of mel power
SHAPES = ("timbral_38", "timbral_67", "temporal_128", "temporal_64", "temporal_32")  # of the first filters
MIDDLE = ("middle_1", "middle_2", "middle_3")
BLOCK_FRAMES = 17  # whose windows fit into the L2 cache


@dataclass(frozen=True)
class Layer:
    """A convolution, or a dense layer, with a rectifier and the batch norm after it."""

    kernel_FMC: NDArray[np.float32]  # of a dense layer: (1, inputs, C)
    bias_C: NDArray[np.float32]
    gain_C: NDArray[np.float32]
    offset_C: NDArray[np.float32]

    def normalise(self, sum_C: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply bias, rectifier and batch norm. Shapes: (..., C) -> (..., C)."""
        return np.asarray(np.maximum(sum_C + self.bias_C, 0) * self.gain_C + self.offset_C)


@dataclass(frozen=True)
class Musicnn:
    """The network up to its last hidden layer, whose values are the embedding."""

    layers: Mapping[str, Layer]  # SHAPES, MIDDLE and "dense"
    input_gain: NDArray[np.float32]  # of the batch norm of the input, a single number
    input_offset: NDArray[np.float32]
    pooled_gain_C: NDArray[np.float32]
    pooled_offset_C: NDArray[np.float32]

    def embed(self, mel_FM: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean embedding of the patches of a crop. Shapes: (F, M) in dB -> (200,)."""
        return np.asarray(np.mean([self.embed_patch(patch) for patch in cut_patches(mel_FM)], axis=0))

    def embed_patch(self, mel_FM: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the embedding of a patch. Shapes: (F, M) in dB -> (200,)."""
        input_FM = compress(mel_FM) * self.input_gain + self.input_offset
        first_FC = np.concatenate(
            [loudest_along_bands(input_FM, self.layers[name]) for name in SHAPES], axis=1
        )
        first, second, third = (self.layers[name] for name in MIDDLE)
        hidden_FC = convolve_in_time(first_FC, first)
        deeper_FC = convolve_in_time(hidden_FC, second) + hidden_FC
        deepest_FC = convolve_in_time(deeper_FC, third) + deeper_FC
        all_FC = np.concatenate([first_FC, hidden_FC, deeper_FC, deepest_FC], axis=1)
        pooled_C = np.stack([all_FC.max(axis=0), all_FC.mean(axis=0)], axis=1).ravel()
        dense = self.layers["dense"]
        return dense.normalise((pooled_C * self.pooled_gain_C + self.pooled_offset_C) @ dense.kernel_FMC[0])

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights by name; `from_arrays` makes the network of them."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "layers"}
        return own | {
            f"{name}.{field.name}": getattr(layer, field.name)
            for name, layer in self.layers.items()
            for field in fields(layer)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> "Musicnn":
        """Return the network of what `arrays` returned. Raises: KeyError if one is missing."""
        layers = {
            name: Layer(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(Layer)})
            for name in (*SHAPES, *MIDDLE, "dense")
        }
        return cls(layers, **{each.name: arrays[each.name] for each in fields(cls) if each.name != "layers"})


def compress(mel_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn levels into the network's scale. Shapes: (F, M) in dB -> (F, M), log10(1 + 10,000 x) of mel power x."""
    return np.asarray(np.log10(1 + COMPRESSION * 10 ** (mel_FM / 10)), np.float32)


def cut_patches(mel_FM: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return as many patches as fit, spaced evenly; a shorter crop is repeated. Shapes: (F, M), each (187, M)."""
    if len(mel_FM) < PATCH_FRAMES:
        mel_FM = mel_FM[np.arange(PATCH_FRAMES) % len(mel_FM)]
    count = len(mel_FM) // PATCH_FRAMES
    between = len(mel_FM) / count - PATCH_FRAMES
    starts = [int((number + 0.5) * between + number * PATCH_FRAMES) for number in range(count)]
    return [mel_FM[start : start + PATCH_FRAMES] for start in starts]


def loudest_along_bands(input_FM: NDArray[np.float32], layer: Layer) -> NDArray[np.float32]:
    """Convolve, and take the maximum over the positions along the bands. Shapes: (F, M) -> (F, C).

    The batch norm lies before the maximum: where its gain is negative, the lowest value gives the highest.
    """
    height, width, channels = layer.kernel_FMC.shape
    padded_FM = np.pad(input_FM, (((height - 1) // 2, height // 2), (0, 0)))
    kernel_VC = layer.kernel_FMC.reshape(-1, channels)
    best_FC = np.empty((len(input_FM), channels), np.float32)
    for start in range(0, len(input_FM), BLOCK_FRAMES):
        stop = min(len(input_FM), start + BLOCK_FRAMES)
        windows = sliding_window_view(padded_FM[start : stop + height - 1], (height, width))
        sum_FPC = (windows.reshape(-1, len(kernel_VC)) @ kernel_VC).reshape(stop - start, -1, channels)
        best_FC[start:stop] = np.where(layer.gain_C > 0, sum_FPC.max(axis=1), sum_FPC.min(axis=1))
    return layer.normalise(best_FC)


def convolve_in_time(input_FC: NDArray[np.float32], layer: Layer) -> NDArray[np.float32]:
    """Convolve over all channels. Shapes: (F, C) -> (F, C')."""
    height, _, channels = layer.kernel_FMC.shape
    padded_FC = np.pad(input_FC, (((height - 1) // 2, height // 2), (0, 0)))
    windows = sliding_window_view(padded_FC, height, axis=0).transpose(0, 2, 1)
    return layer.normalise(windows.reshape(len(input_FC), -1) @ layer.kernel_FMC.reshape(-1, channels))


def check_musicnn_mel(mel: MelSettings) -> None:
    """Raise BadInput unless spectrograms are those that musicnn was trained on."""
    if mel.model_copy(update={"high_hz": mel.top_hz}) != MUSICNN_MEL.model_copy(
        update={"high_hz": MUSICNN_MEL.top_hz}
    ):
        raise BadInput(
            f"{SETTING}: the spectrograms are of {_describe(mel)}; musicnn needs "
            f"{_describe(MUSICNN_MEL)}; build a store with {BUILD_FLAGS}"
        )


def _describe(mel: MelSettings) -> str:
    return (
        f"{mel.sample_rate_hz} Hz, window {mel.window}, hop {mel.hop}, {mel.bands} bands from {mel.low_hz:g} to "
        f"{mel.top_hz:g} Hz"
    )
