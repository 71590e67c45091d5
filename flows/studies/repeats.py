"""How much a result varies: seeds, assignments to folds, and random splits that leak artists on purpose."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import pyarrow as pa

from flows.study_runs.candidates import make_candidates
from flows.study_runs.figures import accuracy_figure
from flows.study_runs.study import Conclusion, Row, Study, StudyContext, StudyRun
from flows.study_runs.trials import make_splits, plan_trials, pool, study_genres, study_tracks
from training.report.formatting import percent
from training.report.study_page import StudyFigure, StudyTable
from training.studies.paired_test import PairedTest, paired_test
from training.studies.summaries import mean_of, rows_by, spread

SPREAD_COLUMNS = (
    "model",
    "split",
    "runs",
    "accuracy",
    "std",
    "lowest",
    "highest",
    "macro_f1",
    "known_artists",
)
TEST_COLUMNS = ("one", "other", "difference", "low", "high", "p", "differs", "tracks", "artists")
Group = tuple[str, str]  # model and split


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan each model with each split, fold and seed. Raises: BadInput if a genre has too few artists."""
    settings, tracks = context.settings, study_tracks(context)
    genres, _ = study_genres(context, tracks, settings.splits)
    return [
        run
        for split in make_splits(context, tracks, sorted(genres), settings.splits)
        for run in plan_trials(context, split, {}, make_candidates(settings))
    ]


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """Compare models and splits: mean, spread, range, and which differences are more than noise."""
    _, notes = study_genres(context, study_tracks(context), context.settings.splits)
    groups: dict[Group, list[Row]] = {
        (key[0], key[1]): its for key, its in rows_by(rows, "model", "split").items()
    }
    pooled = {group: pool(context, its) for group, its in groups.items()}
    tests = [(one, other, test) for one, other, test in _tests(pooled) if test]
    leaks = [
        (one, test)
        for one, other, test in tests
        if one[0] == other[0] and (one[1], other[1]) == ("random", "artist")
    ]
    return Conclusion(
        answer=_answer(groups, tests),
        warnings=[*(_leakage(groups, one, test) for one, test in leaks), *notes],
        figures=list(_figures(groups)),
        tables=[
            StudyTable("Mean, spread and range over all runs", SPREAD_COLUMNS, _spread_rows(groups)),
            StudyTable(
                "Differences of accuracy, paired by track and tested by artist",
                TEST_COLUMNS,
                _test_rows(tests),
            ),
        ],
    )


def _tests(pooled: dict[Group, pa.Table]) -> Iterator[tuple[Group, Group, PairedTest | None]]:
    """Test each model's random split against its artist split, and the models against each other on one split."""
    for one, other in combinations(pooled, 2):
        if one[0] == other[0]:
            first, second = sorted(
                (one, other), key=lambda group: ("random", "artist", "official").index(group[1])
            )
            yield first, second, paired_test(pooled[first], pooled[second])
        elif one[1] == other[1]:
            yield one, other, paired_test(pooled[one], pooled[other])


def _spread_rows(groups: dict[Group, list[Row]]) -> list[tuple[object, ...]]:
    return [
        (
            *group,
            len(its),
            *spread([row["accuracy"] for row in its]),
            mean_of(its, "macro_f1"),
            mean_of(its, "known_artists"),
        )
        for group, its in groups.items()
    ]


def _test_rows(tests: Sequence[tuple[Group, Group, PairedTest]]) -> list[tuple[object, ...]]:
    return [
        (
            ", ".join(one), ", ".join(other), test.difference, test.low, test.high, test.p, test.differs,
            test.tracks, test.artists,
        )
        for one, other, test in tests
    ]  # fmt: skip


def _answer(groups: dict[Group, list[Row]], tests: Sequence[tuple[Group, Group, PairedTest]]) -> str:
    parts = []
    for (model, split), its in groups.items():
        mean, std, lowest, highest = spread([row["accuracy"] for row in its])
        parts.append(
            f"{model}, split {split}: {percent(mean)} right on average of {len(its)} runs, standard deviation "
            f"{100 * std:.1f} points, from {percent(lowest)} to {percent(highest)}."
            if len(its) > 1
            else f"{model}, split {split}: {percent(mean)} right in its only run."
        )
    for one, other, test in tests:
        if one[1] == other[1]:
            better, worse = (one, other) if test.difference >= 0 else (other, one)
            noise = "by more than noise" if test.differs else "within noise"
            parts.append(
                f"{better[0]} is {100 * abs(test.difference):.1f} points above {worse[0]} (split {one[1]}), {noise}: "
                f"{test.p_text} by {test.artists} artists."
            )
    return " ".join(parts) or "No run has finished."


def _leakage(groups: dict[Group, list[Row]], one: Group, test: PairedTest) -> str:
    """Return what the random split of a model gains over the one that shares no artist, and why."""
    known = mean_of(groups[one], "known_artists")
    if test.difference <= 0:
        return (
            f"{one[0]}: the random split does not score higher than the one that shares no artist "
            f"({100 * test.difference:+.1f} points, {test.p_text})."
        )
    surely = "" if test.differs else f" The difference is within noise here ({test.p_text})."
    return (
        f"Leakage: {one[0]} scores {100 * test.difference:.1f} points higher on the random split, because the artists "
        f"of {percent(known)} of its test tracks are in training, too: it recognises artists, not genres. "
        f"Do not quote the random split.{surely}"
    )


def _figures(groups: dict[Group, list[Row]]) -> Iterator[StudyFigure]:
    if groups:
        caption = "Accuracy of every run: a dot each, their mean in colour, chance dotted."
        named = {", ".join(group): its for group, its in groups.items()}
        yield accuracy_figure("spread", caption, named)


STUDY = Study(
    name="repeats",
    question="How much do results vary, and is a difference more than noise?",
    plan=plan,
    conclude=conclude,
    defaults={
        "models": ("svm", "features"),
        "splits": ("official", "artist", "random"),
        "seeds": (0, 1, 2),
        "split_seeds": (0, 1, 2),
    },
    quick={"models": ("svm",), "folds": 2, "split_seeds": (0, 1), "seeds": (0,)},
)
