"""Figures of the probabilities as PNG: calibration, and precision against recall.

Axes: T tracks, G genres.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from training.evaluation.metrics import CALIBRATION_BINS, GenreScore, Reliability, Scores, calibration_error
from training.evaluation.ranking import precision_recall
from training.report.style import LIGHT, Theme, fit_label, new_figure, render_png, style_axes

MAX_SHOWN_GENRES = 8  # those with most tracks
PANEL_COLUMNS = 4


def draw_reliability(before: Reliability, after: Reliability, theme: Theme = LIGHT) -> bytes:
    """Draw the observed frequency of predictions against their probability, and their distribution.

    `before` is the model's own, `after` with temperature and genre tree; if they are equal, one is drawn.
    """
    shown = [(before, "not calibrated", theme.wrong), (after, "calibrated", theme.correct)]
    if np.array_equal(before.predicted, after.predicted):
        shown = [(after, "not calibrated", theme.correct)]
    figure = new_figure(5.4, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    for axes in (upper, lower):
        style_axes(axes, theme)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
    upper.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=(0, (1, 2)))
    width = 0.92 / CALIBRATION_BINS / len(shown)
    for index, (found, label, colour) in enumerate(shown):
        text = f"{label}, ECE {calibration_error(found):.3f}"
        upper.plot(
            found.predicted, found.observed, color=colour, linewidth=1.8, marker="o", markersize=5, label=text
        )
        left = (
            np.minimum(np.floor(found.predicted * CALIBRATION_BINS), CALIBRATION_BINS - 1) / CALIBRATION_BINS
            + 0.04 / CALIBRATION_BINS
            + index * width
        )
        lower.bar(left, found.share, width=width, align="edge", color=colour)
    _label_reliability(upper, lower, theme)
    lower.set_ylim(min(found.share.min() for found, _, _ in shown) / 3, 1)
    return render_png(figure, theme)


def _label_reliability(upper: Axes, lower: Axes, theme: Theme) -> None:
    upper.grid(True, color=theme.line, linewidth=0.6)
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.02, 1.02)
    upper.set_ylabel("observed frequency", color=theme.faint)
    upper.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    upper.legend(
        loc="lower left", bbox_to_anchor=(-0.015, 1.0), ncols=2, frameon=False, handlelength=1.3,
        borderaxespad=0.1, fontsize=9, labelcolor=theme.ink,
    )  # fmt: skip
    lower.set_yscale("log")
    lower.set_ylabel("of predictions", color=theme.faint)
    lower.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    lower.minorticks_off()
    lower.set_xlabel("predicted probability", color=theme.faint)
    lower.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def draw_precision_recall(
    scores: Scores, truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64], theme: Theme = LIGHT
) -> bytes:
    """Draw precision against recall of the genres with most tracks, all genres together in each panel.

    A dot marks the threshold in use, or the likeliest genre.
    """
    shown = most_supported(scores)
    columns = min(PANEL_COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = new_figure(2.2 * columns + 0.4, 2.35 * lines + 0.3)
    micro = precision_recall(truth_TG.ravel(), probability_TG.ravel())
    for index, genre in enumerate(shown):
        axes = style_axes(figure.add_subplot(lines, columns, index + 1), theme)
        axes.plot(*curve_steps(*micro), color=theme.faint, linewidth=1, linestyle=(0, (3, 1.5)))
        axes.plot(
            *curve_steps(*precision_recall(truth_TG[:, genre], probability_TG[:, genre])),
            color=theme.correct,
            linewidth=1.8,
        )
        _mark(axes, scores.genres[genre], theme)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        for axis, edge in ((axes.xaxis, index >= len(shown) - columns), (axes.yaxis, index % columns == 0)):
            axis.set_ticks([0, 0.5, 1], ["0", "50 %", "100 %"] if edge else [""] * 3)
        axes.grid(True, color=theme.line, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    figure.supxlabel(
        "recall: the share of the genre that is found (dashed: all genres together)",
        fontsize=9,
        color=theme.faint,
    )
    figure.supylabel("precision: the share that is correct", fontsize=9, color=theme.faint)
    return render_png(figure, theme)


def most_supported(scores: Scores) -> list[int]:
    """Return the indices of the genres with most tracks, in that order; genres without any are left out."""
    by_support = sorted(range(len(scores.genres)), key=lambda index: -scores.genres[index].support)
    return [index for index in by_support if scores.genres[index].support][:MAX_SHOWN_GENRES]


def _mark(axes: Axes, genre: GenreScore, theme: Theme) -> None:
    if genre.precision is not None and genre.recall is not None:
        axes.scatter(
            [genre.recall], [genre.precision], s=44, color=theme.wrong, edgecolor=theme.paper, zorder=3
        )
    average = "" if genre.average_precision is None else f"average {genre.average_precision:.2f}"
    at: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    name = fit_label(genre.genre, 22)
    axes.annotate(
        name, (0, 1), (0, 17), fontsize=9, color=theme.ink, fontweight="bold", parse_math=False, **at
    )
    few = f"{genre.support:,} track{'s' * (genre.support != 1)}"
    axes.annotate(
        ", ".join(filter(None, [few, average])), (0, 1), (0, 5), fontsize=8, color=theme.faint, **at
    )


def curve_steps(
    recall: NDArray[np.float64], precision: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a curve as steps, as no threshold gives a point between two.

    Of points of equal recall the first counts, as in the average precision; steps too small to see are merged.
    """
    positions = np.round(recall * 400)
    first = np.append(True, positions[1:] != positions[:-1]) & (recall > 0)
    return np.repeat(np.append(0.0, recall[first]), 2)[1:-1], np.repeat(precision[first], 2)
