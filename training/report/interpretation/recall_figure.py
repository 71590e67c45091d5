"""The figure of an audit: how many of the labels swapped on purpose are in how much of the list.

Axes: T tracks.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from training.report.style import Theme, new_axes, render_png


def draw_recall(ranked_swaps: Mapping[str, NDArray[np.bool_]], first_share: float, theme: Theme) -> bytes:
    """Draw the share of swapped labels found against the share of the list that was read, one line a check.

    Shapes: each (T,), whether the label at that rank was swapped.
    """
    figure, axes = new_axes(6.4, 3.6, theme)
    for name, is_swapped_T in ranked_swaps.items():
        read_T = np.arange(len(is_swapped_T) + 1) / len(is_swapped_T)
        found_T = np.concatenate([[0], np.cumsum(is_swapped_T)]) / is_swapped_T.sum()
        axes.step(read_T, found_T, where="post", color=theme.correct, lw=1.5, alpha=0.75, label=name)
    axes.plot([0, 1], [0, 1], color=theme.faint, lw=1, ls=(0, (1, 2)))
    axes.axvline(first_share, color=theme.wrong, lw=1)
    for axis, label in ((axes.xaxis, "read of the list"), (axes.yaxis, "found of the swapped labels")):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axis.set_label_text(label, color=theme.faint)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    return render_png(figure, theme)
