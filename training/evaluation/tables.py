"""A model's results track by track and split by split, and their files: metrics.json and three CSV files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.catalogue.splits import SPLITS
from store.errors import BadInput
from store.fs.csv_rows import to_csv
from training.evaluation.bootstrap import Interval, bootstrap_intervals
from training.evaluation.calibration import Calibration, Target
from training.evaluation.held_out_predictions import select_split, to_matrix
from training.evaluation.metrics import (
    Scores,
    assigned_probability,
    calibration_error,
    reliability,
    score,
    track_outcomes,
)

SCORE_COLUMNS = (
    "run", "split", "scope", "genre", "tracks", "predicted", "precision", "recall", "f1", "macro_f1",
    "accuracy", "accuracy_low", "accuracy_high", "chance", "log_loss", "micro_f1", "macro_f1_low",
    "macro_f1_high", "log_loss_low", "log_loss_high", "mean_average_precision",
    "mean_average_precision_low", "mean_average_precision_high", "roc_auc", "top_k", "k",
    "calibration_error", "average_precision", "threshold",
)  # fmt: skip
PREDICTION_COLUMNS = (
    "track_id", "split", "artist", "title", "truth", "predicted", "correct", "predicted_probability",
    "truth_probability",
)  # fmt: skip


@dataclass(frozen=True)
class TrackResult:
    """Predicted and true genres of one track."""

    track_id: str
    split: str
    artist: str | None
    title: str | None
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    correct: bool
    predicted_probability: float
    truth_probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class SplitResult:
    """The scores of one split, and their uncertainty.

    `intervals` contains those of accuracy, macro_f1, log_loss and mean_average_precision that could
    be computed. `uncalibrated_error` is the calibration error of the network's own probabilities.
    """

    scores: Scores
    intervals: dict[str, Interval]
    uncalibrated_error: float

    @property
    def interval(self) -> Interval | None:
        """The interval of the accuracy."""
        return self.intervals.get("accuracy")


def evaluate_tracks(
    predictions: pa.Table,
    genres: Sequence[str],
    target: Target,
    calibration: Calibration = Calibration(),  # noqa: B008  it is frozen
) -> list[TrackResult]:
    """Compare each prediction with the truth: one result a row, in the order of the table.

    `predictions` has the columns of HELD_OUT_PREDICTIONS_SCHEMA, in the order of `genres`.
    """
    truth_TG = to_matrix(predictions, "truth") > 0
    probability_TG = calibration.calibrate(to_matrix(predictions, "probabilities"), genres, target)
    predicted_TG = calibration.assign_genres(probability_TG, genres, target)
    predicted_probability_T = assigned_probability(predicted_TG, probability_TG, target)
    truth_probability_T = assigned_probability(truth_TG, probability_TG, target)
    tracks = predictions.select(["track_id", "split", "artist", "title"]).to_pylist()
    names = np.array(genres, object)
    return [
        TrackResult(
            **track,
            truth=tuple(names[truth_TG[row]]),
            predicted=tuple(names[predicted_TG[row]]),
            correct=bool((truth_TG[row] == predicted_TG[row]).all()),
            predicted_probability=float(predicted_probability_T[row]),
            truth_probability=float(truth_probability_T[row]),
            probabilities=tuple(probability_TG[row].tolist()),
        )
        for row, track in enumerate(tracks)
    ]


def score_splits(
    predictions: pa.Table,
    genres: Sequence[str],
    target: Target,
    calibration: Calibration = Calibration(),  # noqa: B008  it is frozen
) -> dict[str, SplitResult]:
    """Score each split that has tracks, training first and test last.

    Raises: BadInput if there is no test track.
    """
    results = {}
    for split in SPLITS:
        rows = select_split(predictions, split)
        if len(rows):
            truth_TG, raw_TG = to_matrix(rows, "truth"), to_matrix(rows, "probabilities")
            scores = score(truth_TG, raw_TG, genres, target, calibration)
            outcomes = track_outcomes(truth_TG, raw_TG, genres, target, calibration)
            results[split] = SplitResult(
                scores,
                bootstrap_intervals(outcomes, rows["artist"].to_pylist(), vars(scores)),
                calibration_error(reliability(truth_TG, raw_TG, target)),
            )
    if "test" not in results:
        splits = ", ".join(results) or "none"
        raise BadInput(f"no test track to evaluate (splits with tracks: {splits}); build with a test split")
    return results


def metrics_json(
    name: str,
    results: Mapping[str, SplitResult],
    genres: Sequence[str],
    target: Target,
    caveats: Sequence[str] = (),
) -> bytes:
    """Return metrics.json: the scores by split, null where there is nothing to divide by."""
    splits = {split: asdict(result.scores) | _uncertainty(result) for split, result in results.items()}
    about = {"run": name, "target": target, "genres": list(genres), "caveats": list(caveats)}
    return json.dumps(about | splits, indent=1, ensure_ascii=False, allow_nan=False).encode()


def results_csv(run: str, results: Mapping[str, SplitResult]) -> bytes:
    """Return results.csv: an overall row and one for each genre, by split; a column names the run."""
    rows: list[dict[str, Any]] = []
    for split, result in results.items():
        key, scores = {"run": run, "split": split}, result.scores
        bounds = {
            f"{name}_{end}": getattr(interval, end)
            for name, interval in result.intervals.items()
            for end in ("low", "high")
        }
        rows.append(key | {"scope": "overall"} | vars(scores) | bounds)
        for each in scores.genres:
            rows.append(key | {"scope": "genre", "tracks": each.support} | asdict(each))
    return to_csv(SCORE_COLUMNS, rows)


def predictions_csv(results: Iterable[TrackResult], genres: Sequence[str]) -> bytes:
    """Return held_out_predictions.csv: one row a track; several genres are separated by "; "."""
    rows = (
        asdict(result)
        | {"truth": "; ".join(result.truth), "predicted": "; ".join(result.predicted)}
        | {"correct": "correct" if result.correct else "wrong"}
        | {f"p({genre})": value for genre, value in zip(genres, result.probabilities, strict=True)}
        for result in results
    )
    return to_csv([*PREDICTION_COLUMNS, *(f"p({genre})" for genre in genres)], rows)


def rejects_csv(rejects: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rejects.csv: one row for each file without a spectrogram."""
    return to_csv(["track_id", "reason", "detail"], rejects)


def _uncertainty(result: SplitResult) -> dict[str, Any]:
    """Return all four intervals, null where there is none."""
    names = ("accuracy", "macro_f1", "log_loss", "mean_average_precision")
    intervals = {
        f"{name}_interval": asdict(found) if (found := result.intervals.get(name)) else None for name in names
    }
    return intervals | {"uncalibrated_error": result.uncalibrated_error}
