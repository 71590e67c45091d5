"""Figures of studies as PNG: a matrix of pairs, accuracies as dots, one quantity against another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.ticker import PercentFormatter

from training.report.style import Theme, fit_label, new_axes, render_png

LABEL_LENGTH = 34


def draw_pairs(
    genres: Sequence[str], accuracy_of: Mapping[tuple[str, str], float], theme: Theme, chance: float = 0.5
) -> bytes:
    """Draw the accuracy of each pair of genres: the better they are told apart, the darker."""
    size = len(genres)
    cell_in = float(np.clip(4.5 / size, 0.42, 0.95))
    figure, axes = new_axes(size * cell_in + 2.2, size * cell_in + 1.4, theme, layout="compressed")
    paper, ink = np.array(to_rgb(theme.paper)), np.array(to_rgb(theme.correct))
    image = np.tile(np.array(to_rgb(theme.paper)), (size, size, 1))
    for (one, other), accuracy in accuracy_of.items():
        row, column = genres.index(one), genres.index(other)
        share = float(np.clip((accuracy - chance) / (1 - chance), 0, 1))
        for y, x in ((row, column), (column, row)):
            image[y, x] = paper + (ink - paper) * share
            shade = theme.paper if share > 0.55 else theme.ink
            axes.text(x, y, f"{accuracy:.2f}", ha="center", va="center", fontsize=8, color=shade)
    edges = np.arange(size + 1) - 0.5
    axes.pcolormesh(edges, edges, image, ec=theme.line, lw=0.6)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    names = [fit_label(genre, 26) for genre in genres]
    axes.set_yticks(range(size), names, fontsize=9, parse_math=False)
    axes.xaxis.tick_top()
    turned: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
    axes.set_xticks(range(size), names, fontsize=9, parse_math=False, **turned)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return render_png(figure, theme)


def draw_dots(
    groups: Mapping[str, Sequence[float]],
    theme: Theme,
    *,
    label: str = "accuracy",
    marks: Mapping[str, float] | None = None,
) -> bytes:
    """Draw the values of each group as dots on a line, and their mean as a bar.

    `marks` is a level of each group, such as chance.
    """
    figure, axes = new_axes(8.2, 0.34 * len(groups) + 1.0, theme)
    for row, (name, values) in enumerate(groups.items()):
        axes.plot(values, [row] * len(values), "o", ms=4.5, mew=0, alpha=0.55, color=theme.correct)
        axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=theme.wrong, lw=2)
        if marks and name in marks:
            axes.plot([marks[name]] * 2, [row - 0.3, row + 0.3], color=theme.faint, lw=1.2, ls=(0, (1, 1)))
    labels = [fit_label(name, LABEL_LENGTH) for name in groups]
    axes.set_yticks(range(len(groups)), labels, fontsize=9, parse_math=False)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(label, color=theme.faint)
    axes.xaxis.grid(True, color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    if label.endswith("accuracy"):
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return render_png(figure, theme)


def draw_shares(shares: Mapping[str, float], theme: Theme) -> bytes:
    """Draw shares as bars, in their order."""
    figure, axes = new_axes(8.2, 0.3 * len(shares) + 0.9, theme)
    rows = list(range(len(shares)))
    axes.barh(rows, list(shares.values()), height=0.62, color=theme.correct)
    names = [fit_label(name, LABEL_LENGTH) for name in shares]
    axes.set_yticks(rows, names, fontsize=9, parse_math=False)
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return render_png(figure, theme)


def draw_cost(
    points: Mapping[str, tuple[float, float]], label: str, theme: Theme, y_label: str = "accuracy"
) -> bytes:
    """Draw a cost (on a logarithmic scale) against a score, each point with its name."""
    figure, axes = new_axes(8.2, 4.6, theme)
    for name, (cost, accuracy) in points.items():
        axes.plot([max(cost, 1e-3)], [accuracy], "o", ms=6, mew=0, color=theme.correct)
        axes.annotate(
            fit_label(name, LABEL_LENGTH), (max(cost, 1e-3), accuracy), xytext=(5, 3), textcoords="offset points",
            fontsize=8, color=theme.ink, parse_math=False,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(label, color=theme.faint)
    axes.set_ylabel(y_label, color=theme.faint)
    if y_label == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.grid(True, color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return render_png(figure, theme)
