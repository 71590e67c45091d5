"""What metadata adds to the sound: other tracks of the album and artist, and words of titles.

The weight of each source is fitted on the training folds. The folds share no artist.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.model_stages.feature_table import store_feature_table
from flows.study_runs.figures import accuracy_figure
from flows.study_runs.study import Conclusion, Row, RunResult, Study, StudyContext, StudyRun, finished
from flows.study_runs.trials import pool, study_genres, study_tracks
from preprocessing.catalogue.splits import assign_artist_folds
from store.fs.files import join
from store.fs.parquet import read_table
from training.evaluation.held_out_predictions import to_matrix
from training.evaluation.metrics import score
from training.feature_machine.fitting import join_catalogue
from training.metadata_priors.evaluation import Fold, combine_sources, predict_by_sound
from training.metadata_priors.settings import Source
from training.report.formatting import percent
from training.report.study_page import StudyTable
from training.studies.genre_sets import select_tracks
from training.studies.paired_test import (
    PairedTest,
    difference_cells,
    mean_correct,
    mean_log_loss,
    name_differing,
    paired_test,
)
from training.studies.summaries import mean_of, rows_by
from training.studies.trial import PREDICTIONS_SCHEMA

SOUND = "sound"
FIGURE_CAPTION = "Accuracy of every fold: a dot each, their mean in colour, chance dotted."
TABLE_COLUMNS = (
    "sources", "accuracy", "macro_f1", "accuracy added", "low", "high", "p", "log_loss", "log_loss added", "lower",
    "upper", "p of log_loss",
)  # fmt: skip


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan the predictions by sound of each fold, then what each set of sources makes of them."""
    tracks, genres, _ = metadata_tracks(context)
    fold_of_seed = {
        seed: assign_artist_folds(tracks, context.settings.folds, seed)
        for seed in context.settings.split_seeds
    }
    folds = [
        (seed, Fold(tracks, genres, fold_T, fold))
        for seed, fold_T in fold_of_seed.items()
        for fold in range(context.settings.folds)
    ]
    sound_runs = [sound_run(context, fold, seed) for seed, fold in folds]
    predicted = {row["run"] for row in finished(rows)}
    return [
        *sound_runs,
        *(
            source_run(context, fold, seed, run.name, sources)
            for (seed, fold), run in zip(folds, sound_runs, strict=True)
            if run.name in predicted
            for sources in source_sets(context.settings.sources)
        ),
    ]


def source_sets(sources: Sequence[Source]) -> list[tuple[Source, ...]]:
    """Return each source alone, and all together."""
    alone: list[tuple[Source, ...]] = [(source,) for source in sources]
    return [*alone, tuple(sources)] if len(sources) > 1 else alone


def metadata_tracks(context: StudyContext) -> tuple[pa.Table, tuple[str, ...], list[str]]:
    """Return the tracks, their genres, and a note on each genre that is left out. Raises: BadInput."""
    tracks = study_tracks(context)
    genres, notes = study_genres(context, tracks, ("artist",))
    columns = ["track_id", "artist", "album", "title", "genre_top"]
    return select_tracks(tracks, genres).select(columns), tuple(sorted(genres)), notes


def sound_run(context: StudyContext, fold: Fold, split_seed: int) -> StudyRun:
    """Return the run that predicts a fold, and the others across folds, by sound alone."""

    def prepare() -> dict[str, Any]:
        ids = fold.tracks["track_id"].to_pylist()
        url = store_feature_table(context.cluster, ids, context.snapshot, context.root, context.musicnn)
        return {"fold": fold, "features_url": url, "seed": split_seed}

    return StudyRun(_columns(fold, split_seed, ()), body=run_sound, prepare=prepare)


def source_run(
    context: StudyContext, fold: Fold, split_seed: int, sound: str, sources: tuple[Source, ...]
) -> StudyRun:
    """Return the run that combines the predictions of a run by sound with sources."""

    def prepare() -> dict[str, Any]:
        return {
            "fold": fold,
            "sound_url": join(context.run_folder(sound), "table.parquet"),
            "sources": sources,
        }

    return StudyRun(_columns(fold, split_seed, sources), body=run_sources, prepare=prepare)


def _columns(fold: Fold, split_seed: int, sources: tuple[Source, ...]) -> dict[str, Any]:
    return {
        "sources": " + ".join((SOUND, *sources)),
        "split": "artist",
        "split_seed": split_seed,
        "fold": fold.fold,
        "genres": "; ".join(fold.genres),
    }


def run_sound(fold: Fold, features_url: str, seed: int) -> RunResult:
    """Predict by sound: the body of a run. Its table is SOUND_SCHEMA."""
    table = predict_by_sound(fold, features_url, seed)
    test = table.filter(table["is_test"])
    return RunResult(_metrics(fold, to_matrix(test, "probabilities")), table=table)


def run_sources(fold: Fold, sound_url: str, sources: tuple[Source, ...]) -> RunResult:
    """Combine sound and sources: the body of a run. Its table is PREDICTIONS_SCHEMA."""
    probability_TG, weights = combine_sources(fold, read_table(sound_url), sources)
    by_source = {f"weight_{name}": float(it) for name, it in zip(sources, weights.source_K, strict=True)}
    metrics = {**_metrics(fold, probability_TG), "weight_sound": weights.own, **by_source}
    return RunResult(
        metrics,
        table=label_predictions(fold.tracks.filter(pa.array(fold.is_test())), probability_TG, fold.genres),
    )


def _metrics(fold: Fold, probability_TG: NDArray[np.float64]) -> dict[str, Any]:
    truth_TG = np.eye(len(fold.genres))[fold.truth()[fold.is_test()]]
    scores = score(truth_TG, probability_TG, fold.genres, "top")
    return {
        "test_tracks": scores.tracks,
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "log_loss": scores.log_loss,
        "chance": 1 / len(fold.genres),
        "majority": scores.chance,
    }


def label_predictions(
    tracks: pa.Table, probability_TG: NDArray[np.float64], genres: Sequence[str]
) -> pa.Table:
    """Return predictions of tracks of a catalogue as PREDICTIONS_SCHEMA. Shapes: (T, G)."""
    truth_T = [genres.index(name) for name in tracks["genre_top"].to_pylist()]
    truth_TG = np.eye(len(genres), dtype=np.int8)[truth_T]
    columns = [tracks["track_id"], tracks["artist"], truth_TG.tolist(), probability_TG.tolist()]
    return pa.table(columns, names=PREDICTIONS_SCHEMA.names).cast(PREDICTIONS_SCHEMA)


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """Compare each set of sources with the sound alone, paired by track and tested by artist."""
    tracks, _, notes = metadata_tracks(context)
    groups = {key[0]: its for key, its in rows_by(rows, "sources").items()}
    if SOUND not in groups:
        return Conclusion(answer="No run has finished.", warnings=notes)
    sound = sound_predictions(context, groups[SOUND])
    pooled = {name: pool(context, its) for name, its in groups.items() if name != SOUND}
    tests, losses = (
        {name: test for name, its in pooled.items() if (test := paired_test(its, sound, measure=measure))}
        for measure in (mean_correct, mean_log_loss)
    )
    return Conclusion(
        answer=_answer(groups, tests, losses),
        warnings=[*_missing(tracks, context.settings.sources), *notes],
        figures=[accuracy_figure("sources", FIGURE_CAPTION, groups)],
        tables=[
            StudyTable(
                "Accuracy with each set of sources, and what it adds to the sound alone",
                TABLE_COLUMNS,
                [_table_row(name, its, tests.get(name), losses.get(name)) for name, its in groups.items()],
            )
        ],
    )


def sound_predictions(context: StudyContext, rows: Sequence[Row]) -> pa.Table:
    """Return the predictions of the test tracks by sound alone, of all folds together."""
    tables = []
    for row in rows:
        table = context.read_run_table(row["run"])
        test = table.filter(table["is_test"])
        tracks = join_catalogue(test, context.snapshot.tracks)
        tables.append(label_predictions(tracks, to_matrix(test, "probabilities"), row["genres"].split("; ")))
    return pa.concat_tables(tables)


def _table_row(
    name: str, rows: Sequence[Row], test: PairedTest | None, loss: PairedTest | None
) -> tuple[Any, ...]:
    accuracy, macro_f1, log_loss = (mean_of(rows, it) for it in ("accuracy", "macro_f1", "log_loss"))
    return (name, accuracy, macro_f1, *difference_cells(test), log_loss, *difference_cells(loss))


def _answer(groups: dict[str, list[Row]], tests: dict[str, PairedTest], losses: dict[str, PairedTest]) -> str:
    parts = [f"By sound alone {percent(mean_of(groups[SOUND], 'accuracy'))} of the test tracks are right."]
    differing = {"accuracy": name_differing(tests), "log-loss": name_differing(losses)}
    for name, test in tests.items():
        loss = losses[name]
        surely = [what for what, names in differing.items() if name in names]
        parts.append(
            f"{name}: {100 * test.difference:+.1f} points of accuracy{_interval(test, 100, 1)}, "
            f"{loss.difference:+.3f} nats of log-loss{_interval(loss, 1, 3)}; "
            f"{'more than noise in ' + ' and '.join(surely) if surely else 'within noise'}."
        )
    return " ".join(parts)


def _interval(test: PairedTest, factor: float, digits: int) -> str:
    if test.low is None or test.high is None:
        return ""
    low, high = (f"{factor * bound:+.{digits}f}" for bound in (test.low, test.high))
    return f" (95\N{NARROW NO-BREAK SPACE}% interval {low} to {high})"


def _missing(tracks: pa.Table, sources: Sequence[Source]) -> Iterator[str]:
    """Yield a warning for each source that some tracks lack."""
    for name in sources:
        known = pc.sum(pc.is_valid(tracks[name])).as_py()
        if known < len(tracks):
            yield f"{len(tracks) - known:,} of {len(tracks):,} tracks have no {name}: there it adds nothing."


STUDY = Study(
    name="metadata",
    question="What do album, artist and title add to the sound?",
    plan=plan,
    conclude=conclude,
    defaults={"split_seeds": (0, 1, 2)},
    quick={"split_seeds": (0,), "folds": 2},
)
