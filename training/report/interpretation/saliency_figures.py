"""Figures of what a network responds to, as PNG: saliency over spectrograms, and the maximum of each genre.

Axes: F frames, M mel bands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from training.report.figures import CAPTION_LENGTH, DISPLAY_RANGE_DB, draw_hz_axis
from training.report.style import Theme, fit_label, new_figure, render_png, style_axes

DIMMED = 0.25  # brightness of the cells that a logit does not rest on


@dataclass(frozen=True)
class SalientCrop:
    """A crop of a track, what it was predicted as, and what the logits of both genres rest on."""

    name: str
    truth: str
    predicted: str
    mel_FM: NDArray[np.float32]
    truth_saliency_FM: NDArray[np.float32]
    predicted_saliency_FM: NDArray[np.float32]


def draw_saliency(crops: Sequence[SalientCrop], mel: MelSettings, theme: Theme) -> bytes:
    """Draw each crop three times: as it is, and dimmed where the predicted and the true genre do not rest on it."""
    figure = new_figure(9.2, 1.75 * len(crops) + 0.3)
    for line, crop in enumerate(crops):
        panels = (
            (crop.name, None),
            (f"for {crop.predicted}, predicted", crop.predicted_saliency_FM),
            (f"for {crop.truth}, true", crop.truth_saliency_FM),
        )
        for column, (title, saliency_FM) in enumerate(panels):
            axes = style_axes(figure.add_subplot(len(crops), 3, 3 * line + column + 1), theme)
            _draw_mel(axes, crop.mel_FM, mel, saliency_FM)
            weight = "bold" if column == 0 else "normal"
            title = fit_label(title, CAPTION_LENGTH)
            axes.set_title(
                title, loc="left", fontsize=8, color=theme.ink, fontweight=weight, parse_math=False
            )
            _label_edges(axes, mel, is_left=column == 0, is_last=line == len(crops) - 1, theme=theme)
    return render_png(figure, theme)


def draw_maxima(
    maximum_of: dict[str, NDArray[np.float32]], mel: MelSettings, theme: Theme, columns: int = 4
) -> bytes:
    """Draw the spectrogram that has the greatest logit of each genre."""
    columns = min(columns, len(maximum_of))
    lines = -(-len(maximum_of) // columns)
    figure = new_figure(2.3 * columns + 0.4, 2.1 * lines)
    for index, (genre, mel_FM) in enumerate(maximum_of.items()):
        axes = style_axes(figure.add_subplot(lines, columns, index + 1), theme)
        _draw_mel(axes, mel_FM, mel, None)
        axes.set_title(fit_label(genre, 26), loc="left", fontsize=9, color=theme.ink, parse_math=False)
        is_last = index >= len(maximum_of) - columns
        _label_edges(axes, mel, is_left=index % columns == 0, is_last=is_last, theme=theme)
    return render_png(figure, theme)


def shade(
    mel_FM: NDArray[np.float32], saliency_FM: NDArray[np.float32] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the level of each cell from 0 to 1, and its brightness: 1 at the most salient, DIMMED at the least."""
    loudest_db = float(np.percentile(mel_FM, 99.9))
    level_FM = ((mel_FM - loudest_db) / DISPLAY_RANGE_DB + 1).clip(0, 1)
    brightness_FM = np.ones_like(level_FM) if saliency_FM is None else DIMMED + (1 - DIMMED) * saliency_FM
    return np.asarray(level_FM, np.float64), np.asarray(brightness_FM, np.float64)


def _draw_mel(
    axes: Axes, mel_FM: NDArray[np.float32], mel: MelSettings, saliency_FM: NDArray[np.float32] | None
) -> None:
    level_FM, brightness_FM = shade(mel_FM, saliency_FM)
    rgb_FM3 = colormaps["magma"](level_FM)[..., :3] * brightness_FM[..., None]
    seconds = len(mel_FM) * mel.hop / mel.sample_rate_hz
    axes.imshow(
        rgb_FM3.transpose(1, 0, 2),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, seconds, 0, mel.bands),
    )
    axes.spines[:].set_visible(False)


def _label_edges(axes: Axes, mel: MelSettings, *, is_left: bool, is_last: bool, theme: Theme) -> None:
    draw_hz_axis(axes, mel)
    if not is_left:
        axes.set_yticklabels([])
    axes.set_ylabel("Hz" if is_left else "", color=theme.faint)
    axes.set_xlabel("seconds" if is_last else "", color=theme.faint)
