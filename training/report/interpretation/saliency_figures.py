"""Figures of what a network responds to, as PNG: saliency over spectrograms, and the maximum of each genre.

Axes: F frames, M mel bands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    caption: str  # what it was predicted as
    truth: str
    predicted: str
    mel_FM: NDArray[np.float32]
    truth_saliency_FM: NDArray[np.float32]
    predicted_saliency_FM: NDArray[np.float32]


def draw_saliency(crops: Sequence[SalientCrop], mel: MelSettings, theme: Theme) -> bytes:
    """Draw each crop three times: as it is, and dimmed where the predicted and the true genre do not rest on it."""
    figure = new_figure(9.2, 1.95 * len(crops) + 0.2)
    for line, crop in enumerate(crops):
        panels = (
            (crop.caption, None),
            (f"predicted: {crop.predicted}", crop.predicted_saliency_FM),
            (f"true: {crop.truth}", crop.truth_saliency_FM),
        )
        for column, (title, saliency_FM) in enumerate(panels):
            axes = style_axes(figure.add_subplot(len(crops), 3, 3 * line + column + 1), theme)
            _draw_mel(axes, crop.mel_FM, mel, saliency_FM)
            _write_above(axes, title, theme.faint, 6)
            if column == 0:
                _write_above(axes, crop.name, theme.ink, 18, fontweight="bold")
            _label_edges(axes, mel, is_left=column == 0, is_last=line == len(crops) - 1, theme=theme)
    return render_png(figure, theme)


def draw_maxima(
    change_of: Mapping[str, NDArray[np.float32]], mel: MelSettings, theme: Theme, columns: int = 4
) -> bytes:
    """Draw what raises the logit of each genre: red where a spectrogram gets louder, blue where quieter. Units: dB."""
    columns = min(columns, len(change_of))
    lines = -(-len(change_of) // columns)
    figure = new_figure(2.3 * columns + 0.8, 2.1 * lines)
    most_db = max(float(np.percentile(np.abs(change_FM), 99.5)) for change_FM in change_of.values())
    all_axes: list[Axes] = []
    for index, (genre, change_FM) in enumerate(change_of.items()):
        axes = style_axes(figure.add_subplot(lines, columns, index + 1), theme)
        image = axes.imshow(
            change_FM.T, origin="lower", aspect="auto", interpolation="nearest", cmap="RdBu_r", vmin=-most_db,
            vmax=most_db, extent=_extent(change_FM, mel),
        )  # fmt: skip
        axes.spines[:].set_visible(False)
        _write_above(axes, genre, theme.ink, 6, fontweight="bold")
        is_last = index >= len(change_of) - columns
        _label_edges(axes, mel, is_left=index % columns == 0, is_last=is_last, theme=theme)
        all_axes.append(axes)
    bar = figure.colorbar(image, ax=all_axes, fraction=0.025, pad=0.015)
    bar.ax.tick_params(colors=theme.faint, labelsize=8, length=0)
    bar.set_label("dB", color=theme.faint)
    bar.outline.set_visible(False)
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
    axes.imshow(
        rgb_FM3.transpose(1, 0, 2),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=_extent(mel_FM, mel),
    )
    axes.spines[:].set_visible(False)


def _extent(mel_FM: NDArray[np.float32], mel: MelSettings) -> tuple[float, float, float, float]:
    return (0.0, len(mel_FM) * mel.hop / mel.sample_rate_hz, 0.0, float(mel.bands))


def _write_above(axes: Axes, text: str, colour: str, points: int, **style: Any) -> None:
    at: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "parse_math": False}
    axes.annotate(
        fit_label(text, CAPTION_LENGTH + 10), (0, 1), (0, points), fontsize=8, color=colour, **at, **style
    )


def _label_edges(axes: Axes, mel: MelSettings, *, is_left: bool, is_last: bool, theme: Theme) -> None:
    draw_hz_axis(axes, mel)
    if not is_left:
        axes.set_yticklabels([])
    axes.set_ylabel("Hz" if is_left else "", color=theme.faint)
    axes.set_xlabel("seconds" if is_last else "", color=theme.faint)
