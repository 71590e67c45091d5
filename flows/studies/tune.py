"""The best settings of a network: proposed by Optuna, chosen by the validation loss, then tested once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flows.services.optuna_search import open_search, rank_importance, train_proposal, with_settings
from flows.study_runs.candidates import Candidate, make_candidate, needs_features
from flows.study_runs.study import DONE, Conclusion, Row, RunResult, Study, StudyContext, StudyRun, run_name
from flows.study_runs.trials import (
    Split,
    assign_split,
    make_splits,
    plan_trials,
    pool,
    study_genres,
    study_tracks,
)
from store.errors import BadInput
from store.fs.files import absolute, join
from training.fit.settings import TrainSettings
from training.report.formatting import percent
from training.report.study_figures import draw_cost, draw_shares
from training.report.study_page import StudyFigure, StudyTable
from training.studies.paired_test import paired_test
from training.studies.summaries import mean_of, rows_by, spread
from training.studies.trial import Trial

SEARCH, TEST = "search", "test"
BEST_FILE = "best.toml"
PARAMETERS = (
    "learning_rate", "weight_decay", "label_smoothing", "crop_s", "model.dropout", "model.width", "model.depth",
    "augment.masks", "augment.mixup",
)  # fmt: skip


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan the search; once it is done, test the best settings and those given on all folds."""
    settings, tracks = context.settings, study_tracks(context)
    genres, _ = study_genres(context, tracks, settings.splits)
    if len(settings.models) != 1 or needs_features(settings.models[0]):
        raise BadInput(f"--models {', '.join(settings.models)}: this study tunes one network")
    open_search(context.folder, 0)
    candidate = make_candidate(settings, settings.models[0])
    splits = list(make_splits(context, tracks, sorted(genres), settings.splits))
    runs = [plan_proposal(context, splits[0], candidate, number) for number in range(settings.trials)]
    ended = {row["run"] for row in rows}  # a proposal may diverge
    best = find_best(rows)
    if best is not None and all(run.name in ended for run in runs):
        tuned = with_settings(candidate.training, parameters(best))
        for columns, training in (
            ({"settings": "given"}, candidate.training),
            ({"settings": "best", "optuna_trial": best["optuna_trial"]}, tuned),
        ):
            tested = replace(candidate, training=training)
            for split in splits:
                runs += plan_trials(context, split, {"part": TEST, **columns}, [tested])
    return runs


def plan_proposal(context: StudyContext, split: Split, candidate: Candidate, number: int) -> StudyRun:
    """Return the run of one proposal, on the first fold of the first split."""
    columns = {
        "part": SEARCH,
        "settings": f"proposal {number}",
        "model": candidate.label,
        "split": split.kind,
    }
    prepare = partial(_prepare, context, split, candidate, number, run_name(columns))
    return StudyRun(columns, body=run_tuning_trial, prepare=prepare)


def _prepare(
    context: StudyContext, split: Split, candidate: Candidate, number: int, name: str
) -> dict[str, Any]:
    trial = Trial(
        model=candidate.model,
        genres=split.genres,
        tracks=assign_split(split)[0][0],
        snapshot_url=absolute(context.snapshot.url),
        training=candidate.training,
        folder=join(context.run_folder(name), "training"),
    )
    return {"trial": trial, "folder": context.folder, "number": number}


def run_tuning_trial(trial: Trial, folder: str, number: int) -> RunResult:
    """Train with settings that Optuna proposes: the body of a run."""
    metrics, pruned = train_proposal(trial, folder, number)
    return RunResult(metrics, status="pruned" if pruned else DONE)


def find_best(rows: Sequence[Row]) -> Row | None:
    """Return the finished proposal with the lowest validation loss."""
    return min(trained_proposals(rows), key=lambda row: row["validation_loss"], default=None)


def trained_proposals(rows: Sequence[Row]) -> list[Row]:
    """Return the proposals that were trained to their end."""
    return [row for row in rows if row["part"] == SEARCH and row["status"] == DONE]


def parameters(row: Row) -> dict[str, Any]:
    """Return the proposed settings of a row, by dotted names."""
    return {name: row[name] for name in PARAMETERS if row.get(name) is not None}


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """Write the best settings as TOML, show what mattered, and compare them with those given on test tracks."""
    _, notes = study_genres(context, study_tracks(context), context.settings.splits)
    best = find_best(rows)
    if best is None:
        return Conclusion("No proposal was trained to its end.", notes)
    importance = rank_importance(context.folder)
    training = make_candidate(context.settings, context.settings.models[0]).training
    tuned = with_settings(training, parameters(best))
    table = [(name, getattr_dotted(training, name), value) for name, value in parameters(best).items()]
    return Conclusion(
        answer=" ".join(_answer(context, rows, best)),
        warnings=notes,
        figures=list(_figures(rows, importance)),
        tables=[StudyTable("The best settings", ("setting", "given", "best"), table)],
        files={BEST_FILE: to_toml(tuned).encode()},
    )


def getattr_dotted(training: TrainSettings, name: str) -> Any:
    """Return a setting by its dotted name."""
    value: Any = training
    for part in name.split("."):
        value = getattr(value, part)
    return value


def to_toml(training: TrainSettings) -> str:
    """Return settings as the TOML file that `train --config` takes; those at their defaults are left out."""
    usual = TrainSettings().model_dump()
    tables: dict[str, dict[str, Any]] = {}
    for name, value in training.model_dump(exclude={"seed"}).items():
        if isinstance(value, dict):
            changed = {key: it for key, it in value.items() if it != usual[name][key]}
            tables |= {f"training.{name}": changed} if changed else {}
        elif value != usual[name]:
            tables.setdefault("training", {})[name] = value
    lines = ["# Written by `spectrogram-one experiment tune`: spectrogram-one train --config best.toml"]
    for table, values in sorted(tables.items()):
        # The values are numbers, truth values and texts, which TOML writes as JSON does.
        lines += [
            f"[{table}]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()),
        ]
    return "\n".join([*lines, ""])


def _answer(context: StudyContext, rows: Sequence[Row], best: Row) -> Iterator[str]:
    searched = [row for row in rows if row["part"] == SEARCH]
    pruned = sum(row["status"] == "pruned" for row in searched)
    yield (
        f"{len(searched)} settings were tried, {pruned} of them stopped early; the best has a validation loss of "
        f"{best['validation_loss']:.3f}."
    )
    tested: Mapping[str, list[Row]] = {
        key[0]: its for key, its in rows_by([row for row in rows if row["part"] == TEST], "settings").items()
    }
    if {"best", "given"} <= set(tested):
        test = paired_test(pool(context, tested["best"]), pool(context, tested["given"]))
        means = {name: spread([row["accuracy"] for row in its])[0] for name, its in tested.items()}
        yield (
            f"On test tracks that took no part they give {percent(means['best'])}, those given "
            f"{percent(means['given'])} (chance {percent(mean_of(tested['best'], 'chance'))})."
        )
        if test:
            more = "more than" if test.differs else "no more than"
            yield f"The difference, {100 * test.difference:+.1f} points, is {more} noise ({test.p_text} by artist)."
    yield f"{BEST_FILE} is what `train --config` takes."


def _figures(rows: Sequence[Row], importance: Mapping[str, float]) -> Iterator[StudyFigure]:
    if importance:
        caption = "How much of the variation of the validation loss each setting accounts for."
        yield StudyFigure("importance", caption, partial(draw_shares, importance))
    points = {
        str(row["optuna_trial"]): (float(row["learning_rate"]), float(row["validation_loss"]))
        for row in trained_proposals(rows)
    }
    if points:
        caption = "Learning rate against validation loss, by the number of the proposal."
        yield StudyFigure(
            "proposals", caption, partial(draw_cost, points, "learning rate", y_label="validation loss")
        )


STUDY = Study(
    name="tune",
    question="Which settings are best?",
    plan=plan,
    conclude=conclude,
    defaults={
        "models": ("short-chunk-resnet",),
        "splits": ("artist",),
        "seeds": (0,),
        "split_seeds": (0,),
        "validation_share": 0.2,
    },
    quick={
        "models": ("shallow",),
        "splits": ("official",),
        "trials": 6,
        "training": {"epochs": 2, "crops_per_track": 2, "validation_crops": 2},
    },
)
