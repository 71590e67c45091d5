"""The figure that most studies have: the accuracy of every run, by group."""

from collections.abc import Mapping, Sequence
from functools import partial

from flows.study_runs.study import Row
from training.report.study_figures import draw_dots
from training.report.study_page import StudyFigure


def accuracy_figure(name: str, caption: str, groups: Mapping[str, Sequence[Row]]) -> StudyFigure:
    """Return the accuracies of groups of runs, a dot a run, beside the level of a random guess."""
    accuracies = {group: [row["accuracy"] for row in its] for group, its in groups.items()}
    chance = {group: its[0]["chance"] for group, its in groups.items()}
    return StudyFigure(name, caption, partial(draw_dots, accuracies, marks=chance))
