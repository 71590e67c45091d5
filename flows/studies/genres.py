"""Which genres can be told apart: all pairs, sets of the largest genres, chosen sets, sub-genres of a top genre."""

from collections.abc import Iterator, Sequence
from functools import partial

from flows.study_runs.candidates import make_candidates
from flows.study_runs.figures import accuracy_figure
from flows.study_runs.study import Conclusion, Row, Study, StudyContext, StudyRun
from flows.study_runs.trials import make_splits, plan_trials, study_genres, study_tracks
from training.report.formatting import percent
from training.report.study_figures import draw_pairs
from training.report.study_page import StudyFigure, StudyTable
from training.studies.genre_sets import GenreSet, choose_sets, count_tracks, parse_sets, select_tracks
from training.studies.summaries import mean_of, rows_by

SET_COLUMNS = (
    "genres",
    "model",
    "split",
    "runs",
    "accuracy",
    "macro_f1",
    "chance",
    "majority",
    "test_tracks",
)
MAX_BARS = 30


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan each set of genres with each model and split. Raises: BadInput for unknown genres, or too few artists."""
    return list(_runs(context))


def _runs(context: StudyContext) -> Iterator[StudyRun]:
    settings, tracks = context.settings, study_tracks(context)
    genres, _ = study_genres(context, tracks, settings.splits)
    for its in _sets(context, genres):
        for split in make_splits(context, tracks, its, settings.splits):
            yield from plan_trials(context, split, {"set_size": len(its)}, make_candidates(settings))


def _sets(context: StudyContext, genres: Sequence[str]) -> list[GenreSet]:
    settings = context.settings
    if settings.sets:
        return parse_sets(settings.sets, list(count_tracks(study_tracks(context))))
    counts = count_tracks(select_tracks(study_tracks(context), genres))
    sets = choose_sets(counts, settings.set_sizes)
    everything = tuple(sorted(genres))
    return sets if everything in sets else [*sets, everything]


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """Compare the sets: a heat map of the pairs, the most confused first, and the larger sets against chance."""
    _, notes = study_genres(context, study_tracks(context), context.settings.splits)
    by_set = sorted(
        rows_by(rows, "genres", "model", "split").items(),
        key=lambda item: (item[1][0]["set_size"], mean_of(item[1], "accuracy")),
    )
    table = [
        (*key, len(its), *(mean_of(its, name) for name in SET_COLUMNS[4:8]), its[0]["test_tracks"])
        for key, its in by_set
    ]
    return Conclusion(
        answer=_answer(by_set),
        warnings=notes,
        figures=[*_pair_figures(rows), *_set_figures(by_set)],
        tables=[StudyTable("Sets of genres, the most confused first of each size", SET_COLUMNS, table)],
    )


def _answer(by_set: Sequence[tuple[tuple[str, ...], list[Row]]]) -> str:
    """Return the answer in words."""
    if not by_set:
        return "No run has finished."
    pairs = [(key, mean_of(its, "accuracy")) for key, its in by_set if its[0]["set_size"] == 2]
    parts = []
    if pairs:
        worst, best = min(pairs, key=lambda it: it[1]), max(pairs, key=lambda it: it[1])
        parts.append(
            f"Of {len({key[0] for key, _ in pairs})} pairs of genres {_versus(worst[0][0])} is the hardest to tell "
            f"apart ({percent(worst[1])} right) and {_versus(best[0][0])} the easiest ({percent(best[1])}); "
            "a random guess gives 50 %."
        )
    for key, its in by_set:
        if its[0]["set_size"] > 2:
            parts.append(
                f"With {its[0]['set_size']} genres {percent(mean_of(its, 'accuracy'))} of the test tracks are right "
                f"({key[1]}, split {key[2]}), where a random guess gives {percent(mean_of(its, 'chance'))} and the "
                f"largest genre {percent(mean_of(its, 'majority'))}; macro F1 {mean_of(its, 'macro_f1'):.2f}."
            )
    return " ".join(parts)


def _pair_figures(rows: Sequence[Row]) -> Iterator[StudyFigure]:
    pairs = [row for row in rows if row["set_size"] == 2]
    for (model, split), its in rows_by(pairs, "model", "split").items():
        accuracy_of = {
            (names[0], names[1]): mean_of(of_pair, "accuracy")
            for (text,), of_pair in rows_by(its, "genres").items()
            if (names := text.split("; "))
        }
        genres = sorted({genre for pair in accuracy_of for genre in pair})
        yield StudyFigure(
            f"pairs-{model}-{split}",
            f"Accuracy of each pair of genres: {model}, split {split}. Chance is 0.50.",
            partial(draw_pairs, genres, accuracy_of),
        )


def _set_figures(by_set: Sequence[tuple[tuple[str, ...], list[Row]]]) -> Iterator[StudyFigure]:
    larger = [(key, its) for key, its in by_set if its[0]["set_size"] > 2][:MAX_BARS]
    if larger:
        names = [f"{its[0]['set_size']} genres, {key[1]}, {key[2]}" for key, its in larger]
        if len(set(names)) < len(names):
            names = [key[0] for key, _ in larger]
        caption = "Accuracy of larger sets: a dot a run, their mean in colour, chance dotted."
        groups = {name: its for name, (_, its) in zip(names, larger, strict=True)}
        yield accuracy_figure("sets", caption, groups)


def _versus(pair: str) -> str:
    return pair.replace("; ", " against ")


STUDY = Study(
    name="genres",
    question="Which genres can be told apart?",
    plan=plan,
    conclude=conclude,
    defaults={"models": ("svm",), "splits": ("artist",), "seeds": (0,), "split_seeds": (0,)},
    quick={"splits": ("official",), "folds": 2},
)
