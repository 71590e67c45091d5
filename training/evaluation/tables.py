"""What a model answered, track by track, and the tables made of it: metrics.json and three CSV files."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.catalogue.splits import SPLITS
from store.errors import BadInput
from training.evaluation.bootstrap import Interval, bootstrap_intervals
from training.evaluation.calibration import Calibration, Target
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
    """What was said of one track, and what is true."""

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
    """The scores of one split, and how far they can be trusted.

    `intervals` holds those of accuracy, macro_f1, log_loss and mean_average_precision, as far as
    they can be given. `uncalibrated_error` is the calibration error of the network by itself.
    """

    scores: Scores
    intervals: dict[str, Interval]
    uncalibrated_error: float

    @property
    def interval(self) -> Interval | None:
        """Give the interval of the accuracy."""
        return self.intervals.get("accuracy")


def evaluate_tracks(
    predictions: pa.Table,
    genres: Sequence[str],
    target: Target,
    calibration: Calibration = Calibration(),  # noqa: B008  it is frozen
) -> list[TrackResult]:
    """Compare each answer with the truth: one a row, in the order of the table.

    `predictions` has the columns track_id, split, artist, title, truth (list of 0 and 1)
    and probabilities (list, the network's own), both in the order of `genres`.
    """
    truth_TG = to_matrix(predictions, "truth")
    probability_TG = calibration.calibrate(to_matrix(predictions, "probabilities"), genres, target)
    predicted_TG = calibration.assign_genres(probability_TG, genres, target)
    columns = (predictions[name].to_pylist() for name in ("track_id", "split", "artist", "title"))
    names = np.array(genres, object)
    return [
        TrackResult(
            track_id=track_id,
            split=split,
            artist=artist,
            title=title,
            truth=tuple(names[truth_G > 0]),
            predicted=tuple(names[predicted_G]),
            correct=bool(((truth_G > 0) == predicted_G).all()),
            predicted_probability=float(of_guess),
            truth_probability=float(of_truth),
            probabilities=tuple(probability_G.tolist()),
        )
        for track_id, split, artist, title, truth_G, predicted_G, probability_G, of_guess, of_truth in zip(
            *columns,
            truth_TG,
            predicted_TG,
            probability_TG,
            assigned_probability(predicted_TG, probability_TG, target),
            assigned_probability(truth_TG, probability_TG, target),
            strict=True,
        )
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
        rows = predictions.filter(pc.equal(predictions["split"], split))
        if len(rows):
            truth_TG, raw_TG = to_matrix(rows, "truth"), to_matrix(rows, "probabilities")
            scores = score(truth_TG, raw_TG, genres, target, calibration)
            found = track_outcomes(truth_TG, raw_TG, genres, target, calibration)
            results[split] = SplitResult(
                scores,
                bootstrap_intervals(found, rows["artist"].to_pylist(), vars(scores)),
                calibration_error(reliability(truth_TG, raw_TG, target)),
            )
    if "test" not in results:
        there = ", ".join(results) or "none"
        raise BadInput(f"no test track to evaluate (splits with tracks: {there}); build with a test split")
    return results


def metrics_json(
    name: str,
    results: Mapping[str, SplitResult],
    genres: Sequence[str],
    target: Target,
    caveats: Sequence[str] = (),
) -> bytes:
    """Lay out metrics.json: the scores by split, null where there is nothing to divide by."""
    splits = {split: asdict(result.scores) | _trust(result) for split, result in results.items()}
    about = {"run": name, "target": target, "genres": list(genres), "caveats": list(caveats)}
    return json.dumps(about | splits, indent=1, ensure_ascii=False, allow_nan=False).encode()


def results_csv(name: str, results: Mapping[str, SplitResult]) -> bytes:
    """Lay out results.csv: an overall row and one for each genre, by split; runs can be appended."""
    rows: list[dict[str, Any]] = []
    for split, result in results.items():
        key, scores = {"run": name, "split": split}, result.scores
        bounds = {
            f"{what}_{end}": getattr(interval, end)
            for what, interval in result.intervals.items()
            for end in ("low", "high")
        }
        rows.append(key | {"scope": "overall"} | vars(scores) | bounds)
        for each in scores.genres:
            rows.append(key | {"scope": "genre", "tracks": each.support} | asdict(each))
    return _csv(SCORE_COLUMNS, rows)


def predictions_csv(answers: Iterable[TrackResult], genres: Sequence[str]) -> bytes:
    """Lay out held_out_predictions.csv: one row a track; where it has several genres, "; " parts them."""
    rows = (
        asdict(answer)
        | {"truth": "; ".join(answer.truth), "predicted": "; ".join(answer.predicted)}
        | {"correct": "correct" if answer.correct else "wrong"}
        | {f"p({genre})": value for genre, value in zip(genres, answer.probabilities, strict=True)}
        for answer in answers
    )
    return _csv([*PREDICTION_COLUMNS, *(f"p({genre})" for genre in genres)], rows)


def rejects_csv(rejects: Iterable[Mapping[str, Any]]) -> bytes:
    """Lay out rejects.csv: one row for each file that gave no spectrogram."""
    return _csv(["track_id", "reason", "detail"], rejects)


def to_matrix(predictions: pa.Table, column: str) -> NDArray[np.float64]:
    """Give a column of lists, all of one length, as (T, G)."""
    values = pc.list_flatten(predictions[column]).to_numpy()
    return np.asarray(values, np.float64).reshape(len(predictions), -1)


def _trust(result: SplitResult) -> dict[str, Any]:
    """Lay out all four intervals, null where there is none."""
    names = ("accuracy", "macro_f1", "log_loss", "mean_average_precision")
    intervals = {
        f"{name}_interval": asdict(found) if (found := result.intervals.get(name)) else None for name in names
    }
    return intervals | {"uncalibrated_error": result.uncalibrated_error}


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
