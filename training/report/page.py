"""The report of an evaluation: tables, figures and one page that contains all of it."""

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from training.evaluation.calibration import UNREACHABLE_THRESHOLD, Calibration, Target
from training.evaluation.held_out_predictions import select_split, to_matrix
from training.evaluation.metrics import Scores, reliability
from training.evaluation.tables import (
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
    caveats,
    confusions,
    describe_prediction,
    headline,
    time_shares,
    track_label,
    worst_tracks,
)
from training.report.formatting import format_setting, make_environment
from training.report.score_figures import MAX_SHOWN_GENRES, draw_precision_recall, draw_reliability
from training.report.style import DARK, DPI, LIGHT, Theme

MAX_PAGE_REJECTS = 500  # a browser shows so many rows easily; rejects.csv has all
CSS_DPI = 96
ReadMel = Callable[[str], NDArray[np.float32]]
Images = dict[str, dict[str, bytes]]  # by theme and file name


def render_report(
    *,
    name: str,
    predictions: pa.Table,
    genres: Sequence[str],
    target: Target,
    history: Sequence[Mapping[str, Any]],
    best_epoch: int,
    about: Mapping[str, Any],
    rejects: Sequence[Mapping[str, Any]],
    mel: MelSettings,
    read_mel: ReadMel,
    calibration: Calibration = Calibration(),  # noqa: B008  it is frozen
    notes: Sequence[str] = (),
    test_use: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return the files of a model's report: tables, figures and report.html, by name.

    `name` is the run's in results.csv. `predictions` has the columns of HELD_OUT_PREDICTIONS_SCHEMA; `history`
    has a dict for each epoch, and may be empty; `rejects` have track_id, reason and detail; `notes` explain the
    `calibration`; `test_use` is what `record_test_use` returned.

    Raises: BadInput if there is no test track.
    """
    splits = score_splits(predictions, genres, target, calibration)
    test, tracks = splits["test"], evaluate_tracks(predictions, genres, target, calibration)
    doubts = list(caveats(test, test_use, fitted=calibration != Calibration()))
    shown, shown_are_wrong = worst_tracks([track for track in tracks if track.split == "test"])
    panels = [Panel(track_label(it), describe_prediction(it), read_mel(it.track_id)) for it in shown]
    images = {
        kind: {
            file: draw()
            for file, draw in [
                *_model_figures(test.scores, history, best_epoch, panels, mel, theme),
                *_probability_figures(test.scores, predictions, genres, calibration, theme),
            ]
        }
        for kind, theme in (("light", LIGHT), ("dark", DARK))
    }
    page = _render_page(
        images,
        name=name,
        target=target,
        headline=headline(test.scores),
        results=splits,
        test=test,
        shown=shown,
        shown_are_wrong=shown_are_wrong,
        best_epoch=best_epoch,
        about={name: format_setting(value) for name, value in flatten(about)},
        rejects=rejects[:MAX_PAGE_REJECTS],
        reasons=Counter(str(reject["reason"]) for reject in rejects),
        caveats=doubts,
        notes=notes,
        test_use=test_use,
        earlier_versions=earlier_versions(test_use) if test_use else [],
        times=time_shares(history),
        confusions=confusions(test.scores),
    )
    return {
        "metrics.json": metrics_json(name, splits, genres, target, doubts),
        "results.csv": results_csv(name, splits),
        "held_out_predictions.csv": predictions_csv(tracks, genres),
        "rejects.csv": rejects_csv(rejects),
        **images["light"],
        "report.html": page.encode(),
    }


def _model_figures(
    test: Scores,
    history: Sequence[Mapping[str, Any]],
    best_epoch: int,
    panels: Sequence[Panel],
    mel: MelSettings,
    theme: Theme,
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    match test.target:
        case "top":
            yield "confusion_matrix.png", lambda: draw_confusion_matrix(test, theme)
        case "multi":
            yield "genre_f1.png", lambda: draw_genre_bars(test, theme)
    if history:
        yield "learning_curves.png", lambda: draw_learning_curves(history, best_epoch, theme)
    yield "wrong_tracks.png", lambda: draw_spectrograms(panels, mel, theme)


def _probability_figures(
    test: Scores, predictions: pa.Table, genres: Sequence[str], calibration: Calibration, theme: Theme
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    rows = select_split(predictions, "test")
    truth_TG, raw_TG = to_matrix(rows, "truth") > 0, to_matrix(rows, "probabilities")
    probability_TG = calibration.calibrate(raw_TG, genres, test.target)
    before, after = (reliability(truth_TG, each, test.target) for each in (raw_TG, probability_TG))
    yield "calibration.png", lambda: draw_reliability(before, after, theme)
    if truth_TG.any():
        yield "precision_recall.png", lambda: draw_precision_recall(test, truth_TG, probability_TG, theme)


def _render_page(images: Images, **context: Any) -> str:
    environment = make_environment()
    environment.filters["track_label"] = track_label
    return environment.get_template("report.html.j2").render(
        images={
            kind: {file: _data_uri(png) for file, png in files.items()} for kind, files in images.items()
        },
        widths_px={file: round(_width(png) * CSS_DPI / DPI) for file, png in images["light"].items()},
        never=UNREACHABLE_THRESHOLD,
        max_shown_genres=MAX_SHOWN_GENRES,
        **context,
    )


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _width(png: bytes) -> int:
    return int.from_bytes(png[16:20])  # the first field of the first chunk
