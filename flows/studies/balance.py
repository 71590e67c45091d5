"""How balanced the data are, what weights and sampling change, and how much the worst pair depends on its split."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flows.study_runs.candidates import FEATURES, Candidate, make_candidates, needs_features
from flows.study_runs.study import Conclusion, Row, Study, StudyContext, StudyRun, finished
from flows.study_runs.trials import Split, make_splits, plan_trials, pool, study_genres, study_tracks
from training.evaluation.held_out_predictions import to_matrix
from training.report.formatting import percent
from training.report.study_figures import draw_dots
from training.report.study_page import StudyFigure, StudyTable
from training.studies.balance import count_shares, find_imbalances, most_confused_pair
from training.studies.classical import Balancing
from training.studies.genre_sets import select_tracks
from training.studies.splits import count_artists
from training.studies.summaries import mean_of, rows_by, spread

REASSIGNMENTS = 8  # of the artists of the worst pair to folds
ALL, PAIR = "all genres", "worst pair"
COUNT_COLUMNS = ("genre", "split", "tracks", "artists", "hours")
COLUMNS = ("model", "balancing", "runs", "accuracy", "std", "macro_f1", "log_loss")


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan each way to balance; once these are done, the worst pair on several assignments of artists to folds."""
    settings, tracks = context.settings, study_tracks(context)
    genres, _ = study_genres(context, tracks, settings.splits)
    runs = [
        run
        for split in make_splits(context, tracks, sorted(genres), settings.splits)
        for balancing, candidates in _candidates(context).items()
        for run in plan_trials(context, split, {"part": ALL, "balancing": balancing}, candidates)
    ]
    ended = {row["run"] for row in rows}  # one that failed does not keep the others from being looked at
    artists = count_artists(tracks, genres)
    enough = [genre for genre in genres if artists[genre] >= settings.folds]
    if len(enough) > 1 and runs and all(run.name in ended for run in runs):
        runs += _plan_worst_pair(context, rows, enough)
    return runs


def _candidates(context: StudyContext) -> dict[str, list[Candidate]]:
    """Return the models by the way they are balanced; the feature machine cannot be balanced."""
    every = make_candidates(context.settings)
    some = [it for it in every if it.model != FEATURES]
    return {
        "none": [_balanced(it, "none", {"class_weights": False, "balance": "none"}) for it in every],
        "weights": [_balanced(it, "weights", {"class_weights": True, "balance": "none"}) for it in some],
        "sampling": [_balanced(it, "sampling", {"class_weights": False, "balance": "genre"}) for it in some],
    }


def _balanced(candidate: Candidate, balancing: Balancing, training: dict[str, Any]) -> Candidate:
    """Return a model that is balanced in a way of classical models, or by settings of a network's training."""
    if needs_features(candidate.model):
        return replace(candidate, balancing=balancing)
    return replace(candidate, training=candidate.training.model_copy(update=training))


def _plan_worst_pair(context: StudyContext, rows: Sequence[Row], among: Sequence[str]) -> Iterator[StudyRun]:
    pair = find_worst_pair(context, rows, among)
    if pair is None:
        return
    settings = context.settings
    own = select_tracks(study_tracks(context), pair)
    for seed in range(REASSIGNMENTS):
        split = Split(own, pair, "artist", settings.folds, settings.validation_share, seed)
        columns = {"part": PAIR, "balancing": "none"}
        yield from plan_trials(context, split, columns, make_candidates(settings)[:1])


def find_worst_pair(
    context: StudyContext, rows: Sequence[Row], among: Sequence[str]
) -> tuple[str, str] | None:
    """Return the pair of some genres that the first model confuses most, unbalanced; None if all its runs failed."""
    plain = [row for row in finished(rows) if row["part"] == ALL and row["balancing"] == "none"]
    if not plain:
        return None
    its = next(iter(rows_by(plain, "model").values()))
    table = pool(context, its)
    return most_confused_pair(
        its[0]["genres"].split("; "), to_matrix(table, "truth"), to_matrix(table, "probabilities"), among
    )


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """Count, warn, compare the ways to balance, and show the spread of the worst pair."""
    tracks = study_tracks(context)
    genres, notes = study_genres(context, tracks, context.settings.splits)
    shares = count_shares(tracks)
    counts = [(*key, it.tracks, len(it.artists), it.hours) for key, it in shares.items()]
    groups = rows_by([row for row in rows if row["part"] == ALL], "model", "balancing")
    pair = [row for row in rows if row["part"] == PAIR]
    table = [
        (
            *key,
            len(its),
            *spread([row["accuracy"] for row in its])[:2],
            mean_of(its, "macro_f1"),
            mean_of(its, "log_loss"),
        )
        for key, its in groups.items()
    ]
    return Conclusion(
        answer=" ".join(_answer(genres, len(tracks), groups, pair)),
        warnings=[*find_imbalances(shares), *notes],
        figures=list(_figures(groups, pair)),
        tables=[
            StudyTable("Ways to balance", COLUMNS, table),
            StudyTable("Tracks, artists and hours", COUNT_COLUMNS, counts),
        ],
    )


def _answer(
    genres: Sequence[str], tracks: int, groups: dict[tuple[str, ...], list[Row]], pair: list[Row]
) -> Iterator[str]:
    yield f"{tracks:,} tracks of {len(genres)} genres."
    for (model,), its in rows_by([row for rows in groups.values() for row in rows], "model").items():
        scores = {key[0]: mean_of(of_one, "macro_f1") for key, of_one in rows_by(its, "balancing").items()}
        listed = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        yield f"Macro F1 of {model} by how it is balanced: {listed}."
    if pair:
        by_seed = [mean_of(its, "accuracy") for its in rows_by(pair, "split_seed").values()]
        mean, std, lowest, highest = spread(by_seed)
        yield (
            f"The most confused pair is {pair[0]['genres'].replace('; ', ' and ')}. With its artists assigned to folds "
            f"{len(by_seed)} times, {percent(mean)} are right, from {percent(lowest)} to {percent(highest)} (standard "
            f"deviation {100 * std:.1f} points): this spread comes from the split alone."
        )


def _figures(groups: dict[tuple[str, ...], list[Row]], pair: list[Row]) -> Iterator[StudyFigure]:
    if groups:
        values = {f"{model}, {how}": [row["macro_f1"] for row in its] for (model, how), its in groups.items()}
        caption = "Macro F1 of each fold by how the training is balanced, the mean in colour."
        yield StudyFigure("balancing", caption, partial(draw_dots, values, label="macro F1"))
    if pair:
        by_seed = {
            f"assignment {key[0]}": [row["accuracy"] for row in its]
            for key, its in rows_by(pair, "split_seed").items()
        }
        caption = f"{pair[0]['genres']}: accuracy of each fold, by assignment of artists to folds."
        yield StudyFigure("worst-pair", caption, partial(draw_dots, by_seed))


STUDY = Study(
    name="balance",
    question="How balanced are the data, and what do weights, sampling and other splits change?",
    plan=plan,
    conclude=conclude,
    defaults={"models": ("svm", "logistic"), "splits": ("artist",), "seeds": (0,), "split_seeds": (0,)},
    quick={"splits": ("official",), "folds": 2},
)
