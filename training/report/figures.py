"""Figures of a report as PNG: confusion matrix, F1 by genre, learning curves, spectrograms.

Axes: F frames, M mel bands, R rows of genres.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import librosa
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from training.evaluation.metrics import Scores
from training.report.style import LIGHT, Theme, fit_label, new_axes, new_figure, render_png, style_axes

DISPLAY_RANGE_DB = 75.0  # below the loudest; quieter cells are drawn black
MAX_IMAGE_COLUMNS = 640  # about the pixels of a panel
CAPTION_LENGTH = 42
HZ_TICKS = (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)


@dataclass(frozen=True)
class Panel:
    """A spectrogram with two lines of text above it."""

    name: str
    caption: str
    mel_FM: NDArray[np.float32]


def draw_confusion_matrix(scores: Scores, theme: Theme = LIGHT) -> bytes:
    """Draw the confusion matrix: counts, shaded by the share of their row."""
    assert scores.confusion is not None, "one genre a track"
    counts = np.array(scores.confusion)
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell_in = float(np.clip(3.4 / size, 0.42, 1.0))
    figure, axes = new_axes(size * cell_in + 2.0, size * cell_in + 1.4, theme, layout="compressed")
    axes.pcolormesh(
        np.arange(size + 1) - 0.5, np.arange(size + 1) - 0.5, _shaded(shares, theme), ec=theme.line, lw=0.6
    )
    axes.set_aspect("equal")
    axes.invert_yaxis()
    _outline_diagonal(axes, size, theme)
    if size <= 30:
        _count_cells(axes, counts, shares, theme)
    names = [fit_label(each.genre, 26) for each in scores.genres]
    rows = [f"{name}  {each.support}" for name, each in zip(names, scores.genres, strict=True)]
    small = 9 if size <= 20 else 6
    axes.set_yticks(range(size), rows, fontsize=small, parse_math=False)
    axes.xaxis.tick_top()
    turned: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if size > 4 else {}
    axes.set_xticks(range(size), names, fontsize=small, parse_math=False, **turned)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted", color=theme.faint, labelpad=8)
    axes.set_ylabel("true (number of tracks)", color=theme.faint, labelpad=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return render_png(figure, theme)


def draw_genre_bars(scores: Scores, theme: Theme = LIGHT) -> bytes:
    """Draw the F1 of each genre, those with most tracks on top."""
    rows = sorted(scores.genres, key=lambda each: (-each.support, each.genre))
    figure, axes = new_axes(8.0, 0.28 * len(rows) + 0.9, theme)
    positions = list(range(len(rows)))
    axes.barh(positions, [each.f1 or 0.0 for each in rows], height=0.62, color=theme.correct)
    for index, each in zip(positions, rows, strict=True):
        text = "no test track" if each.f1 is None else f"{each.f1:.2f}"
        axes.text((each.f1 or 0.0) + 0.01, index, text, va="center", fontsize=8, color=theme.faint)
    labels = [f"{fit_label(each.genre, 30)}  {each.support}" for each in rows]
    axes.set_yticks(positions, labels, fontsize=9, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.06)
    axes.set_xlabel("F1 of each genre; after its name, its number of test tracks", color=theme.faint)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return render_png(figure, theme)


def draw_learning_curves(
    history: Sequence[Mapping[str, Any]], best_epoch: int, theme: Theme = LIGHT
) -> bytes:
    """Draw loss and scores by epoch, the best epoch marked; missing columns are left out."""
    figure = new_figure(8.4, 3.3)
    left, right = (style_axes(figure.add_subplot(1, 2, index), theme) for index in (1, 2))
    _curve(left, history, "train_loss", "training", theme.correct, best_epoch, theme)
    _curve(left, history, "validation_loss", "validation", theme.wrong, best_epoch, theme)
    _curve(right, history, "validation_accuracy", "accuracy", theme.wrong, best_epoch, theme)
    _curve(right, history, "validation_macro_f1", "macro F1", theme.third, best_epoch, theme)
    right.set_ylim(0, 1.02)
    epochs = [row["epoch"] for row in history]
    right.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    for axes, title in ((left, "Loss"), (right, "Validation tracks")):
        axes.set_title(title, loc="left", fontsize=10, color=theme.ink, pad=22)
        axes.set_xlabel(f"epoch ({best_epoch} was best)", color=theme.faint)
        axes.axvline(best_epoch, color=theme.faint, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.grid(True, color=theme.line, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if axes.lines[:-1]:
            axes.legend(
                loc="lower left", bbox_to_anchor=(-0.015, 1.0), ncols=2, frameon=False, handlelength=1.3,
                borderaxespad=0.1, fontsize=9, labelcolor=theme.ink,
            )  # fmt: skip
    return render_png(figure, theme)


def draw_spectrograms(panels: Sequence[Panel], settings: MelSettings, theme: Theme = LIGHT) -> bytes:
    """Draw spectrograms, two in a row, on one dB scale. Shapes: each (F, M), F may differ."""
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(4.15 * columns + 0.3, 2.15 * lines)
    loudest_db = max(float(np.percentile(panel.mel_FM, 99.9)) for panel in panels)
    all_axes: list[Axes] = []
    for index, panel in enumerate(panels):
        axes = style_axes(figure.add_subplot(lines, columns, index + 1), theme)
        image = axes.imshow(
            _thinned(panel.mel_FM).T,
            origin="lower",
            aspect="auto",
            interpolation="nearest",  # smoothed noise would triple the file
            cmap="magma",
            vmin=loudest_db - DISPLAY_RANGE_DB,
            vmax=loudest_db,
            extent=(0, len(panel.mel_FM) * settings.hop / settings.sample_rate_hz, 0, settings.bands),
        )
        _caption(axes, panel, theme)
        draw_hz_axis(axes, settings)
        axes.spines[:].set_visible(False)
        axes.set_ylabel("Hz" if index % columns == 0 else "", color=theme.faint)
        axes.set_xlabel("seconds" if index >= len(panels) - columns else "", color=theme.faint)
        all_axes.append(axes)
    bar = figure.colorbar(image, ax=all_axes, fraction=0.025, pad=0.015, aspect=16 * lines)
    bar.ax.tick_params(colors=theme.faint, labelsize=8, length=0)
    bar.set_label("dB", color=theme.faint)
    bar.outline.set_visible(False)
    return render_png(figure, theme)


def band_centres_hz(settings: MelSettings) -> NDArray[np.float64]:
    """Return the centre frequency of each mel band. Shapes: (M,). Units: Hz."""
    edges = librosa.mel_frequencies(settings.bands + 2, fmin=settings.low_hz, fmax=settings.top_hz)
    return np.asarray(edges[1:-1], np.float64)


def draw_hz_axis(axes: Axes, settings: MelSettings) -> None:
    """Draw ticks in Hz on axes whose vertical unit is the mel band."""
    centres_hz = band_centres_hz(settings)
    ticks_hz = [hz for hz in HZ_TICKS if centres_hz[0] <= hz <= centres_hz[-1]]
    positions = np.interp(ticks_hz, centres_hz, np.arange(settings.bands) + 0.5)
    axes.set_yticks(positions, [f"{hz:,}" for hz in ticks_hz])


def _shaded(shares_RR: NDArray[np.float64], theme: Theme) -> NDArray[np.float64]:
    """Return colours: blue on the diagonal, vermilion off it, mixed with the paper. Shapes: (R, R) -> (R, R, 3)."""
    full = np.where(np.eye(len(shares_RR))[..., None] > 0, to_rgb(theme.correct), to_rgb(theme.wrong))
    weight = 0.92 * shares_RR[..., None]
    return np.asarray(weight * full + (1 - weight) * np.array(to_rgb(theme.paper)))


def _outline_diagonal(axes: Axes, size: int, theme: Theme) -> None:
    for index in range(size):
        axes.add_patch(
            Rectangle((index - 0.5, index - 0.5), 1, 1, fill=False, edgecolor=theme.correct, linewidth=1.2)
        )


def _count_cells(
    axes: Axes, counts_RR: NDArray[np.int64], shares_RR: NDArray[np.float64], theme: Theme
) -> None:
    shades = _shaded(shares_RR, theme)
    roomy = len(counts_RR) <= 8
    for row, column in zip(*np.nonzero(counts_RR), strict=True):
        dark = float(shades[row, column] @ [0.299, 0.587, 0.114]) < 0.55
        colour = "#ffffff" if dark else "#1a1a1a"
        count, share = f"{counts_RR[row, column]:,}", f"{shares_RR[row, column]:.0%}"
        at = {"ha": "center", "va": "center", "color": colour}
        size = 15 if roomy else 9 - max(0, len(count) - 3)
        axes.text(column, row - (0.1 if roomy else 0), count, fontsize=size, **at)  # type: ignore[arg-type]
        if roomy:
            axes.text(column, row + 0.24, share.replace("%", " %"), fontsize=8, **at)  # type: ignore[arg-type]


def _curve(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    key: str,
    label: str,
    colour: str,
    best_epoch: int,
    theme: Theme,
) -> None:
    points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
    if not points:
        return
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, color=colour, linewidth=1.8, label=label, marker="o" if len(points) < 3 else "")
    if best_epoch in epochs:
        best = values[epochs.index(best_epoch)]
        axes.scatter([best_epoch], [best], s=42, color=colour, edgecolor=theme.paper, linewidth=1.2, zorder=3)


def _thinned(mel_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average the frames of a long track down to the pixels of a panel. Shapes: (F, M) -> (F', M)."""
    step = -(-len(mel_FM) // MAX_IMAGE_COLUMNS)
    whole_FM = mel_FM[: len(mel_FM) // step * step]
    return np.asarray(whole_FM.reshape(-1, step, mel_FM.shape[1]).mean(axis=1), np.float32)


def _caption(axes: Axes, panel: Panel, theme: Theme) -> None:
    at: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "parse_math": False}
    name, caption = fit_label(panel.name, CAPTION_LENGTH), fit_label(panel.caption, CAPTION_LENGTH + 14)
    axes.annotate(name, (0, 1), (0, 19), fontsize=9, color=theme.ink, fontweight="bold", **at)
    axes.annotate(caption, (0, 1), (0, 6), fontsize=8, color=theme.faint, **at)
