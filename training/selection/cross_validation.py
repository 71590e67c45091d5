"""Cross-validation: each labelled track is a test track once, for a model trained without its artist.

Axes: T tracks, G genres, K folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.catalogue.settings import SplitSettings
from preprocessing.catalogue.splits import assign_artist_folds, split_by_artist, with_split
from store.fs.csv_rows import to_csv
from training.evaluation.calibration import Target
from training.evaluation.metrics import Scores, score
from training.fit.labels import select_labelled_tracks, select_training_genres

# Predictions for the test tracks of a fold; `seed` and the last two are null where no network is trained.
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
FOLD_RESULTS_FILE, CONFUSION_FILE, FOLD_PREDICTIONS_FILE = (
    "results.csv", "confusion.csv", "fold_predictions.parquet",
)  # fmt: skip
FOLD_COLUMNS = (
    "model", "seed", "fold", "tracks", "correct", "accuracy", "macro_f1", "log_loss", "chance", "best_epoch", "train_s",
)  # fmt: skip


@dataclass(frozen=True)
class FoldResult:
    """The scores of one model on the test tracks of one fold. `train_s` is the duration of its epochs in seconds."""

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
    """Return the genres to predict, and the tracks that have one of them, whatever split they are in.

    Raises: BadInput if a wanted genre has no track, or fewer than two genres are left.
    """
    unsplit = with_split(tracks, pa.repeat("training", len(tracks)))
    genres = select_training_genres(unsplit, target, wanted)
    rows = tracks.select(["shard", "genre_top", "genres"]).to_pylist()
    genres_of = [{row["genre_top"]} if target == "top" else set(row["genres"] or []) for row in rows]
    chosen = [
        bool(row["shard"]) and not has.isdisjoint(genres) for row, has in zip(rows, genres_of, strict=True)
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
    """Return the tracks of each fold's run: its own part is the test split, shared with no other fold.

    Raises: BadInput if a genre has too few artists.

    The validation split is a share of the other artists, so that nothing is chosen on a fold's test split.
    """
    fold_T = assign_artist_folds(labelled, folds, seed)
    return [
        select_labelled_tracks(split_fold(labelled, fold_T == fold, validation_share, seed), target, genres)
        for fold in range(folds)
    ]


def split_fold(
    labelled: pa.Table, is_test_T: NDArray[np.bool_], validation_share: float, seed: int
) -> pa.Table:
    """Return the tracks with the splits of one fold's run. Raises: BadInput if a genre has too few other artists."""
    settings = SplitSettings(mode="artist", validation_share=validation_share, test_share=0.0, seed=seed)
    rest = split_by_artist(labelled.filter(pa.array(~is_test_T)), settings)
    test = labelled.filter(pa.array(is_test_T))
    return pa.concat_tables([rest, with_split(test, pa.repeat("test", len(test)))])


def fold_predictions(
    predictions: pa.Table,
    *,
    model: str,
    fold: int,
    seed: int | None = None,
    best_epoch: int | None = None,
    train_s: float | None = None,
) -> pa.Table:
    """Return a model's predictions for the test tracks of a fold as FOLD_PREDICTIONS_SCHEMA.

    `predictions` has the columns track_id, truth and probabilities, and may have others.
    """
    about = {"model": model, "seed": seed, "fold": fold, "best_epoch": best_epoch, "train_s": train_s}
    columns = {name: predictions[name] for name in ("track_id", "truth", "probabilities")}
    columns |= {name: [value] * len(predictions) for name, value in about.items()}
    return pa.table(columns).cast(FOLD_PREDICTIONS_SCHEMA)


def score_folds(predictions: pa.Table, genres: Sequence[str], target: Target) -> list[FoldResult]:
    """Score each model, seed and fold of FOLD_PREDICTIONS_SCHEMA rows, in the order of their first row."""
    rows_of: dict[tuple[str, int | None, int], list[int]] = {}
    keys = zip(*(predictions[name].to_pylist() for name in ("model", "seed", "fold")), strict=True)
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    results = []
    for (model, seed, fold), rows in rows_of.items():
        own = predictions.take(rows)
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


def score_pooled(predictions: pa.Table, model: str, genres: Sequence[str], target: Target) -> Scores:
    """Score all test tracks of all folds and seeds of one model together."""
    return _score(predictions.filter(pc.equal(predictions["model"], model)), genres, target)


def score_spread(results: Sequence[FoldResult], model: str, *, name: str) -> Spread:
    """Return mean and spread over folds of a score of one model, such as "accuracy"."""
    by_fold: dict[int, list[float]] = {}
    for result in results:
        if result.model == model:
            by_fold.setdefault(result.fold, []).append(getattr(result.scores, name))
    means_K = [float(np.mean(values)) for values in by_fold.values()]
    return Spread(float(np.mean(means_K)), float(np.std(means_K, ddof=1)))


def folds_csv(results: Sequence[FoldResult]) -> bytes:
    """Return results.csv: one row a model, seed and fold."""
    return to_csv(FOLD_COLUMNS, ({**vars(result.scores), **vars(result)} for result in results))


def confusion_csv(scores: Mapping[str, Scores]) -> bytes:
    """Return confusion.csv, pooled over folds and seeds: one row a model, true and predicted genre."""
    rows = (
        {"model": model, "truth": true.genre, "predicted": predicted.genre, "tracks": count}
        for model, its in scores.items()
        for true, counts in zip(its.genres, its.confusion or (), strict=False)
        for predicted, count in zip(its.genres, counts, strict=True)
    )
    return to_csv(("model", "truth", "predicted", "tracks"), rows)


def _score(predictions: pa.Table, genres: Sequence[str], target: Target) -> Scores:
    return score(predictions["truth"].to_pylist(), predictions["probabilities"].to_pylist(), genres, target)
