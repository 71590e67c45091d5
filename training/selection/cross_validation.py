"""Cross-validation: each labelled track is a test track once, heard by a model that knows no song of its artist.

Axes: T tracks, G genres, K folds.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.catalogue.settings import SplitSettings
from preprocessing.catalogue.splits import assign_artist_folds, split_by_artist
from training.evaluation.calibration import Target
from training.evaluation.metrics import Scores, score
from training.fit.labels import select_labelled_tracks, select_training_genres

# What a model said of the test tracks of a fold; the last two, and `seed`, are null where no network is trained.
FOLD_PREDICTIONS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("truth", pa.list_(pa.int8())),
        ("probabilities", pa.list_(pa.float32())),
        ("model", pa.string()),
        ("seed", pa.int64()),
        ("fold", pa.int64()),
        ("best_epoch", pa.int64()),
        ("train_s", pa.float64()),
    ]
)
FOLD_COLUMNS = (
    "model", "seed", "fold", "tracks", "correct", "accuracy", "macro_f1", "log_loss", "chance", "best_epoch", "train_s",
)  # fmt: skip


@dataclass(frozen=True)
class FoldResult:
    """How one model did on the test tracks of one fold. `train_s` is what its epochs took, in seconds."""

    model: str
    seed: int | None
    fold: int
    best_epoch: int | None
    train_s: float | None
    scores: Scores


@dataclass(frozen=True)
class Spread:
    """Mean over all folds and seeds, and standard deviation over folds of the mean over seeds."""

    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.std:.3f}"


def select_cross_validation_tracks(
    tracks: pa.Table, target: Target, wanted: Sequence[str]
) -> tuple[tuple[str, ...], pa.Table]:
    """Name the genres to tell apart, and list the tracks of them, whatever split they were in.

    Raises: BadInput if a genre that is wanted has no track, or fewer than two are left.
    """
    all_alike = _with_split(tracks, ["training"] * len(tracks))
    genres = select_training_genres(all_alike, target, wanted)
    rows = tracks.select(["shard", "genre_top", "genres"]).to_pylist()
    heard_of = [{row["genre_top"]} if target == "top" else set(row["genres"] or []) for row in rows]
    chosen = [
        bool(row["shard"]) and not has.isdisjoint(genres) for row, has in zip(rows, heard_of, strict=True)
    ]
    return genres, tracks.filter(pa.array(chosen, pa.bool_()))


def split_folds(
    labelled: pa.Table,
    target: Target,
    genres: Sequence[str],
    *,
    folds: int,
    validation_share: float,
    seed: int,
) -> list[pa.Table]:
    """Lay out the tracks of each fold's run: its own part is the test, shared with no other fold.

    Raises: BadInput if a genre has too few artists.

    The validation part is a share of the rest, of artists of its own again: a fold's test
    part chooses nothing.
    """
    fold_T = assign_artist_folds(labelled, folds, seed)
    return [
        select_labelled_tracks(_split_for(labelled, fold_T == fold, validation_share, seed), target, genres)
        for fold in range(folds)
    ]


def _split_for(
    labelled: pa.Table, is_test_T: NDArray[np.bool_], validation_share: float, seed: int
) -> pa.Table:
    settings = SplitSettings(mode="artist", validation_share=validation_share, test_share=0.0, seed=seed)
    rest = split_by_artist(labelled.filter(pa.array(~is_test_T)), settings)
    test = labelled.filter(pa.array(is_test_T))
    return pa.concat_tables([rest, _with_split(test, ["test"] * len(test))])


def fold_predictions(
    predictions: pa.Table,
    *,
    model: str,
    fold: int,
    seed: int | None = None,
    best_epoch: int | None = None,
    train_s: float | None = None,
) -> pa.Table:
    """Give what a model said of the test tracks of a fold as FOLD_PREDICTIONS_SCHEMA.

    `heard` has the columns track_id, truth and probabilities, and may have others.
    """
    about = {"model": model, "seed": seed, "fold": fold, "best_epoch": best_epoch, "train_s": train_s}
    columns = {name: predictions[name] for name in ("track_id", "truth", "probabilities")}
    columns |= {name: [value] * len(predictions) for name, value in about.items()}
    return pa.table(columns).cast(FOLD_PREDICTIONS_SCHEMA)


def score_folds(answers: pa.Table, genres: Sequence[str], target: Target) -> list[FoldResult]:
    """Score each model, seed and fold that the answers hold, in the order of their first row."""
    rows_of: dict[tuple[str, int | None, int], list[int]] = {}
    keys = zip(*(answers[name].to_pylist() for name in ("model", "seed", "fold")), strict=True)
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    results = []
    for (model, seed, fold), rows in rows_of.items():
        own = answers.take(rows)
        results.append(
            FoldResult(
                model=model,
                seed=seed,
                fold=fold,
                best_epoch=own["best_epoch"][0].as_py(),
                train_s=own["train_s"][0].as_py(),
                scores=_score(own, genres, target),
            )
        )
    return results


def score_pooled(answers: pa.Table, model: str, genres: Sequence[str], target: Target) -> Scores:
    """Score all test tracks of all folds and seeds of one model together."""
    return _score(answers.filter(pc.equal(answers["model"], model)), genres, target)


def score_spread(results: Sequence[FoldResult], model: str, *, of: str) -> Spread:
    """Tell how a score of one model, such as "accuracy", varies from fold to fold."""
    by_fold: dict[int, list[float]] = {}
    for result in results:
        if result.model == model:
            by_fold.setdefault(result.fold, []).append(getattr(result.scores, of))
    means_K = [float(np.mean(values)) for values in by_fold.values()]
    return Spread(float(np.mean(means_K)), float(np.std(means_K, ddof=1)))


def folds_csv(results: Sequence[FoldResult]) -> bytes:
    """Lay out results.csv: one row a model, seed and fold."""
    rows = []
    for result in results:
        about = {**vars(result.scores), **vars(result)}
        rows.append([_plain(about[name]) for name in FOLD_COLUMNS])
    return _csv(FOLD_COLUMNS, rows)


def confusion_csv(scores: dict[str, Scores]) -> bytes:
    """Lay out confusion.csv, pooled over folds and seeds: one row a model, truth and guess."""
    rows = [
        [model, truth.genre, told.genre, count]
        for model, its in scores.items()
        for truth, counts in zip(its.genres, its.confusion or (), strict=False)
        for told, count in zip(its.genres, counts, strict=True)
    ]
    return _csv(("model", "truth", "predicted", "tracks"), rows)


def _score(answers: pa.Table, genres: Sequence[str], target: Target) -> Scores:
    return score(answers["truth"].to_pylist(), answers["probabilities"].to_pylist(), genres, target)


def _with_split(tracks: pa.Table, splits: list[str]) -> pa.Table:
    place = tracks.schema.get_field_index("split")
    return tracks.set_column(place, "split", pa.array(splits, pa.string()))


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _plain(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value
