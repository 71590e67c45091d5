"""What a model answered, track by track, and the tables made of it: metrics.json and three CSV files."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.splits import SPLITS
from store.errors import BadInput
from training.metrics import Interval, Scores, Target, accuracy_interval, belief, guess, score

RESULT_COLUMNS = (
    "run", "split", "scope", "genre", "tracks", "guessed", "precision", "recall", "f1", "macro_f1",
    "accuracy", "accuracy_low", "accuracy_high", "chance", "log_loss",
)  # fmt: skip
ANSWER_COLUMNS = (
    "track_id", "split", "artist", "title", "truth", "guess", "right", "guess_probability",
    "truth_probability",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What was said of one track, and what is true."""

    track_id: str
    split: str
    artist: str | None
    title: str | None
    truth: tuple[str, ...]
    guess: tuple[str, ...]
    right: bool
    guess_probability: float
    truth_probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class SplitResult:
    """The scores of one split, and how far its accuracy can be trusted."""

    scores: Scores
    interval: Interval | None


def judge(predictions: pa.Table, genres: Sequence[str], target: Target) -> list[Answer]:
    """Compare each prediction with the truth: one answer a row, in the order of the table.

    `predictions` has the columns track_id, split, artist, title, truth (list of 0 and 1)
    and probabilities (list), both in the order of `genres`.
    """
    truth_TG, probability_TG = _matrix(predictions, "truth"), _matrix(predictions, "probabilities")
    told_TG = guess(probability_TG, target)
    columns = (predictions[name].to_pylist() for name in ("track_id", "split", "artist", "title"))
    names = np.array(genres, object)
    return [
        Answer(
            track_id=track_id,
            split=split,
            artist=artist,
            title=title,
            truth=tuple(names[truth_G > 0]),
            guess=tuple(names[told_G]),
            right=bool(((truth_G > 0) == told_G).all()),
            guess_probability=float(of_guess),
            truth_probability=float(of_truth),
            probabilities=tuple(probability_G.tolist()),
        )
        for track_id, split, artist, title, truth_G, told_G, probability_G, of_guess, of_truth in zip(
            *columns,
            truth_TG,
            told_TG,
            probability_TG,
            belief(told_TG, probability_TG, target),
            belief(truth_TG, probability_TG, target),
            strict=True,
        )
    ]


def score_splits(answers: Sequence[Answer], genres: Sequence[str], target: Target) -> dict[str, SplitResult]:
    """Score each split that has tracks, training first and test last.

    Raises: BadInput if no test track was answered.
    """
    results = {}
    for split in SPLITS:
        rows = [answer for answer in answers if answer.split == split]
        if rows:
            truth_TG = [[genre in row.truth for genre in genres] for row in rows]
            results[split] = SplitResult(
                score(truth_TG, [row.probabilities for row in rows], genres, target),
                accuracy_interval([row.right for row in rows], [row.artist for row in rows]),
            )
    if "test" not in results:
        found = ", ".join(results) or "none"
        raise BadInput(f"no test track to evaluate (splits with tracks: {found}); build with a test split")
    return results


def metrics_json(
    name: str, results: Mapping[str, SplitResult], genres: Sequence[str], target: Target
) -> bytes:
    """Lay out metrics.json: the scores by split, null where there is nothing to divide by."""
    splits = {split: asdict(result.scores) | _interval(result) for split, result in results.items()}
    content = {"run": name, "target": target, "genres": list(genres), **splits}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode()


def results_csv(name: str, results: Mapping[str, SplitResult]) -> bytes:
    """Lay out results.csv: an overall row and one for each genre, by split; runs can be appended."""
    rows: list[dict[str, Any]] = []
    for split, result in results.items():
        key = {"run": name, "split": split}
        scores, bounds = result.scores, result.interval
        rows.append(
            key
            | {
                "scope": "overall",
                "tracks": scores.tracks,
                "accuracy": scores.accuracy,
                "chance": scores.chance,
            }
            | {"accuracy_low": bounds and bounds.low, "accuracy_high": bounds and bounds.high}
            | {"macro_f1": scores.macro_f1, "log_loss": scores.log_loss}
        )
        for each in scores.genres:
            rows.append(key | {"scope": "genre", "tracks": each.support} | asdict(each))
    return _csv(RESULT_COLUMNS, rows)


def predictions_csv(answers: Iterable[Answer], genres: Sequence[str]) -> bytes:
    """Lay out predictions.csv: one row a track; where it has several genres, "; " parts them."""
    rows = (
        asdict(answer)
        | {"truth": "; ".join(answer.truth), "guess": "; ".join(answer.guess)}
        | {"right": "right" if answer.right else "wrong"}
        | {f"p({genre})": value for genre, value in zip(genres, answer.probabilities, strict=True)}
        for answer in answers
    )
    return _csv([*ANSWER_COLUMNS, *(f"p({genre})" for genre in genres)], rows)


def rejects_csv(rejects: Iterable[Mapping[str, Any]]) -> bytes:
    """Lay out rejects.csv: one row for each file that gave no spectrogram."""
    return _csv(["track_id", "reason", "detail"], rejects)


def _matrix(predictions: pa.Table, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    rows = predictions[column].to_pylist()
    return np.array(rows, np.float64).reshape(len(rows), -1)


def _interval(result: SplitResult) -> dict[str, Any]:
    return {"accuracy_interval": asdict(result.interval) if result.interval else None}


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
