"""Which model: shallow to deep, dropout and batch norm on and off, large networks, and models without a network."""

from collections.abc import Iterator, Sequence
from functools import partial

from flows.study_runs.candidates import BLOCKS, CLASSICAL, FEATURES, SHORT, make_candidates, needs_features
from flows.study_runs.figures import accuracy_figure
from flows.study_runs.study import Conclusion, Row, Study, StudyContext, StudyRun
from flows.study_runs.trials import make_splits, plan_trials, pool, study_genres, study_tracks
from training.report.formatting import percent
from training.report.study_figures import draw_cost
from training.report.study_page import StudyFigure, StudyTable
from training.studies.paired_test import PairedTest, difference_cells, paired_test
from training.studies.summaries import mean_of, rows_by, spread
from training.studies.trial import LIBROSA_SUFFIX

COLUMNS = (
    "model", "runs", "accuracy", "std", "macro_f1", "log_loss", "seconds", "cpu_s", "minus_best", "low", "high", "p",
)  # fmt: skip
PAIRS = (
    ("dropout", SHORT, "no-dropout"),
    ("batch norm", SHORT, "no-batch-norm"),
)


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan each model on each split. Raises: BadInput for an unknown model, or if a genre has too few artists."""
    settings, tracks = context.settings, study_tracks(context)
    genres, _ = study_genres(context, tracks, settings.splits)
    candidates = make_candidates(settings)
    return [
        run
        for split in make_splits(context, tracks, sorted(genres), settings.splits)
        for run in plan_trials(context, split, {}, candidates)
    ]


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """Rank the models of each split, test each against the best, and show what an accuracy costs."""
    _, notes = study_genres(context, study_tracks(context), context.settings.splits)
    parts, figures, tables = [], [], []
    for (split,), of_split in rows_by(rows, "split").items():
        groups = {key[0]: its for key, its in rows_by(of_split, "model").items()}
        best = max(groups, key=lambda name: mean_of(groups[name], "accuracy"))
        tests = {name: compare(context, groups[name], groups[best]) for name in groups if name != best}
        parts.append(describe(split, groups, best, tests))
        figures += list(draw(split, groups))
        tables.append(StudyTable(f"Models, split {split}, the best first", COLUMNS, table(groups, tests)))
    return Conclusion(" ".join(parts) or "No run has finished.", notes, figures, tables)


def compare(context: StudyContext, one: list[Row], other: list[Row]) -> PairedTest | None:
    """Test one model against another by the artists of their test tracks."""
    return paired_test(pool(context, one), pool(context, other))


def table(groups: dict[str, list[Row]], tests: dict[str, PairedTest | None]) -> list[tuple[object, ...]]:
    """Return a row for each model, the best first."""
    rows: list[tuple[object, ...]] = []
    for name in rank(groups):
        its = groups[name]
        mean, std, _, _ = spread([row["accuracy"] for row in its])
        costs = [mean_of(its, column) for column in COLUMNS[4:8]]
        rows.append((name, len(its), mean, std, *costs, *difference_cells(tests.get(name))))
    return rows


def rank(groups: dict[str, list[Row]]) -> list[str]:
    """Return the names of the models, the most accurate first."""
    return sorted(groups, key=lambda name: -mean_of(groups[name], "accuracy"))


def describe(split: str, groups: dict[str, list[Row]], best: str, tests: dict[str, PairedTest | None]) -> str:
    """Return the answer of one split in words."""
    accuracy = {name: mean_of(its, "accuracy") for name, its in groups.items()}
    equal = [name for name, test in tests.items() if test and not test.differs]
    parts = [
        f"Split {split}: {best} is the best of {len(groups)} models with {percent(accuracy[best])} right (chance "
        f"{percent(mean_of(groups[best], 'chance'))})."
    ]
    if equal:
        parts.append(f"Within noise of it, by a paired test by artist: {', '.join(equal)}.")
    depths = [(name, accuracy[name]) for name in BLOCKS if name in accuracy]
    if len(depths) > 1:
        series = ", ".join(f"{name.removeprefix('blocks-')}: {percent(it)}" for name, it in depths)
        parts.append(f"By number of residual blocks: {series}.")
    for what, having, lacking in PAIRS:
        if having in accuracy and lacking in accuracy:
            gain = 100 * (accuracy[having] - accuracy[lacking])
            parts.append(f"With {what} {percent(accuracy[having])}, {gain:+.1f} points against without.")
    neural = [name for name in accuracy if not needs_features(name)]
    plain = [name for name in accuracy if name not in neural]
    if neural and plain:
        network, other = (max(names, key=lambda name: accuracy[name]) for names in (neural, plain))
        parts.append(
            f"The best network is {network} ({percent(accuracy[network])}), the best model without one {other} "
            f"({percent(accuracy[other])})."
        )
    return " ".join(parts)


def draw(split: str, groups: dict[str, list[Row]]) -> Iterator[StudyFigure]:
    """Yield the figures of one split."""
    caption = f"Split {split}: a dot for each fold and seed, the mean in colour, chance dotted."
    yield accuracy_figure(f"models-{split}", caption, {name: groups[name] for name in rank(groups)})
    costs = {name: (mean_of(its, "cpu_s"), mean_of(its, "accuracy")) for name, its in groups.items()}
    caption = f"Split {split}: CPU seconds of a training with its predictions, against accuracy."
    yield StudyFigure(f"cost-{split}", caption, partial(draw_cost, costs, "CPU seconds"))


STUDY = Study(
    name="models",
    question="Which model, how deep, and is a network needed at all?",
    plan=plan,
    conclude=conclude,
    defaults={
        "models": (
            *CLASSICAL,
            *(f"{name}{LIBROSA_SUFFIX}" for name in CLASSICAL),
            FEATURES,
            "shallow",
            *BLOCKS[:-1],
            SHORT,
            "no-dropout",
            "no-batch-norm",
            "resnet18",
            "vgg16",
        ),
        "splits": ("artist",),
        "seeds": (0,),
        "split_seeds": (0,),
    },
    quick={
        "models": ("svm", "logistic", "logistic-librosa", "shallow", "blocks-1"),
        "splits": ("official",),
        "training": {"epochs": 2, "crops_per_track": 2},
    },
)
