"""The report of an evaluation: tables, figures and one page that contains all of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from store.model_registry import REPORT_PAGE
from training.evaluation.calibration import UNREACHABLE_THRESHOLD, Calibration, Target
from training.evaluation.held_out_predictions import select_split, to_matrix
from training.evaluation.metrics import Scores, reliability
from training.evaluation.tables import (
    SplitResult,
    evaluate_tracks,
    metrics_json,
    predictions_csv,
    rejects_csv,
    results_csv,
    score_splits,
)
from training.evaluation.test_set_use import earlier_versions
from training.report.dotted_names import flatten
from training.report.figures import (
    Panel,
    draw_confusion_matrix,
    draw_genre_bars,
    draw_learning_curves,
    draw_spectrograms,
)
from training.report.findings import (
    across_folds,
    caveats,
    confusions,
    describe_prediction,
    headline,
    time_shares,
    track_label,
    worst_tracks,
)
from training.report.formatting import data_uri, format_setting, make_environment
from training.report.score_figures import MAX_SHOWN_GENRES, draw_precision_recall, draw_reliability
from training.report.style import DARK, LIGHT, Theme, css_width_px
from training.selection.model_choice import ModelChoice

METRICS_FILE = "metrics.json"
# The figure of the test tracks' scores.
SCORE_FIGURES: Mapping[Target, str] = {"top": "confusion_matrix.png", "multi": "genre_f1.png"}
MAX_PAGE_REJECTS = 500  # a browser shows so many rows easily; rejects.csv has all
ReadMel = Callable[[str], NDArray[np.float32]]
Images = dict[str, dict[str, bytes]]  # by theme and file name


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made from."""

    name: str  # of the run, in results.csv
    predictions: pa.Table  # with the columns of HELD_OUT_PREDICTIONS_SCHEMA
    genres: Sequence[str]
    target: Target
    history: Sequence[Mapping[str, Any]]  # one row an epoch; may be empty
    best_epoch: int
    about: Mapping[str, Any]
    rejects: Sequence[Mapping[str, Any]]  # with track_id, reason and detail
    mel: MelSettings
    read_mel: ReadMel
    calibration: Calibration = Calibration()  # noqa: RUF009  it is frozen
    notes: Sequence[str] = ()  # that explain the calibration
    baseline: Scores | None = None  # on the test tracks
    choice: ModelChoice | None = None
    test_use: Mapping[str, Any] | None = None  # what `record_test_use` returned


def render_report(inputs: ReportInputs) -> dict[str, bytes]:
    """Return the files of a model's report: tables, figures and report.html, by name.

    Raises: BadInput if there is no test track.
    """
    it, fitted = inputs, inputs.calibration != Calibration()
    splits = score_splits(it.predictions, it.genres, it.target, it.calibration)
    tracks = evaluate_tracks(it.predictions, it.genres, it.target, it.calibration)
    doubts = list(caveats(splits["test"], it.test_use, fitted=fitted))
    shown, shown_are_wrong = worst_tracks([track for track in tracks if track.split == "test"])
    panels = [
        Panel(track_label(track), describe_prediction(track), it.read_mel(track.track_id)) for track in shown
    ]
    test = splits["test"].scores
    images = {
        kind: {file: draw() for file, draw in _figures(it, test, panels, theme)}
        for kind, theme in (("light", LIGHT), ("dark", DARK))
    }
    tables = {
        METRICS_FILE: metrics_json(it.name, splits, it.genres, it.target, doubts),
        "results.csv": results_csv(it.name, splits),
        "held_out_predictions.csv": predictions_csv(tracks, it.genres),
        "rejects.csv": rejects_csv(it.rejects),
    }
    page = _render_page(
        it, splits, images, caveats=doubts, shown=shown, shown_are_wrong=shown_are_wrong, tables=list(tables)
    )
    return {
        **tables,
        **images["light"],
        REPORT_PAGE: page.encode(),
    }


def _figures(
    inputs: ReportInputs, test: Scores, panels: Sequence[Panel], theme: Theme
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    match test.target:
        case "top":
            yield SCORE_FIGURES["top"], lambda: draw_confusion_matrix(test, theme)
        case "multi":
            yield SCORE_FIGURES["multi"], lambda: draw_genre_bars(test, theme)
    if inputs.history:
        yield "learning_curves.png", lambda: draw_learning_curves(inputs.history, inputs.best_epoch, theme)
    yield "wrong_tracks.png", lambda: draw_spectrograms(panels, inputs.mel, theme)
    yield from _probability_figures(inputs, test, theme)


def _probability_figures(
    inputs: ReportInputs, test: Scores, theme: Theme
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    rows = select_split(inputs.predictions, "test")
    truth_TG, raw_TG = to_matrix(rows, "truth") > 0, to_matrix(rows, "probabilities")
    probability_TG = inputs.calibration.calibrate(raw_TG, inputs.genres, inputs.target)
    before, after = (reliability(truth_TG, each, inputs.target) for each in (raw_TG, probability_TG))
    yield "calibration.png", lambda: draw_reliability(before, after, theme)
    if truth_TG.any():
        yield "precision_recall.png", lambda: draw_precision_recall(test, truth_TG, probability_TG, theme)


def _render_page(
    inputs: ReportInputs, splits: Mapping[str, SplitResult], images: Images, **context: Any
) -> str:
    environment, test = make_environment(), splits["test"]
    environment.filters["track_label"] = track_label
    return environment.get_template(f"{REPORT_PAGE}.j2").render(
        name=inputs.name,
        target=inputs.target,
        headline=headline(test.scores, inputs.baseline),
        baseline=inputs.baseline,
        choice=inputs.choice,
        across_folds=across_folds(inputs.choice),
        results=splits,
        test=test,
        images={kind: {file: data_uri(png) for file, png in files.items()} for kind, files in images.items()},
        widths_px={file: css_width_px(png) for file, png in images["light"].items()},
        best_epoch=inputs.best_epoch,
        about={name: format_setting(value) for name, value in flatten(inputs.about)},
        rejects=inputs.rejects[:MAX_PAGE_REJECTS],
        reasons=Counter(str(reject["reason"]) for reject in inputs.rejects),
        notes=inputs.notes,
        test_use=inputs.test_use,
        earlier_versions=earlier_versions(inputs.test_use) if inputs.test_use else [],
        times=time_shares(inputs.history),
        confusions=confusions(test.scores),
        never=UNREACHABLE_THRESHOLD,
        max_shown_genres=MAX_SHOWN_GENRES,
        **context,
    )
