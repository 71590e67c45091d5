"""Which spectrogram: scale, level, bands, hop, window, excerpt, normalisation; and what storing it costs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from flows.cluster.fan_out import fan_out, in_batches
from flows.reporting.progress import showing_progress
from flows.reporting.stage import stage
from flows.study_runs.candidates import make_candidate
from flows.study_runs.figures import accuracy_figure
from flows.study_runs.study import Conclusion, Row, RunResult, Study, StudyContext, StudyRun, run_name
from flows.study_runs.trials import (
    Split,
    assign_split,
    make_splits,
    pool,
    run_study_trial,
    study_genres,
    study_tracks,
)
from preprocessing.mel.settings import MelSettings
from store.dataset.shards import Shard
from store.errors import BadInput
from store.fs.files import join
from store.reader import open_snapshot
from training.fit.run import TRACKS_SCHEMA
from training.report.formatting import percent
from training.report.study_figures import draw_cost
from training.report.study_page import StudyFigure, StudyTable
from training.studies.paired_test import PairedTest, difference_cells, name_differing, paired_test
from training.studies.storage import FORMATS, StorageFormat, measure_storage
from training.studies.summaries import mean_of, rows_by, spread
from training.studies.trial import Trial
from training.studies.variant_store import build_variants, is_published, publish_variant, store_url
from training.studies.variants import Variant, list_variants

TRACKS_PER_BATCH, STORED_TRACKS = 8, 12
ACCURACY, STORAGE = "accuracy", "storage cost"
COLUMNS = (
    "variant",
    "part",
    "runs",
    "accuracy",
    "std",
    "macro_f1",
    "train_s",
    "minus_base",
    "low",
    "high",
    "p",
)
STORAGE_COLUMNS = (
    "format",
    "rms_db",
    "max_db",
    "clipped_share",
    "bytes_per_hour",
    "write_s",
    "read_s",
    "accuracy",
)
# Both add decibels to a crop, which means nothing on other scales: all variants are trained without them.
WITHOUT_DB = {"gain_db": 0.0, "tone_db": 0.0}


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan a network for each variant, split and seed, and the measurement of each format; build what is missing."""
    settings, tracks = context.settings, study_tracks(context)
    genres, _ = study_genres(context, tracks, settings.splits)
    if len(settings.models) != 1:
        raise BadInput(f"--models {', '.join(settings.models)}: this study needs one network")
    variants = choose_variants(context)
    splits = list(make_splits(context, tracks, sorted(genres), settings.splits))
    missing = [it for it in variants if not is_published(context.folder, it)]
    if missing:
        build_missing(context, tracks, missing)
    runs = [run for split in splits for it in variants for run in plan_variant(context, split, it)]
    ids = tracks["track_id"].to_pylist()[:: max(1, len(tracks) // STORED_TRACKS)][:STORED_TRACKS]
    base = store_url(context.folder, variants[0])
    for form in FORMATS:
        arguments = {"store": base, "track_ids": ids, "form": form}
        columns = {"part": STORAGE, "variant": form}
        runs.append(StudyRun(columns, run_storage, partial(dict, **arguments)))
    return runs


def choose_variants(context: StudyContext) -> list[Variant]:
    """Return all variants, or with `--quick` one of each part."""
    variants = list_variants(MelSettings.model_validate(context.snapshot.mel_settings))
    if not context.settings.quick:
        return variants
    return list({it.part: it for it in reversed(variants)}.values())[::-1]


@stage
def build_missing(context: StudyContext, tracks: pa.Table, variants: Sequence[Variant]) -> None:
    """Compute the spectrograms of all variants from the audio, which is decoded once."""
    rows = zip(tracks["track_id"].to_pylist(), tracks["url"].to_pylist(), strict=True)
    shards: list[list[Shard]] = []
    with showing_progress(
        f"Computing {len(variants)} spectrograms of each track", len(tracks), "tracks"
    ) as advance:
        for batch, written in fan_out(
            context.cluster,
            build_variants,
            in_batches(rows, TRACKS_PER_BATCH),
            variants=variants,
            root=context.folder,
        ):
            shards.append(written)
            advance(len(batch), "")
    catalogue = context.snapshot.catalogue
    for variant, its in zip(variants, zip(*shards, strict=True), strict=True):
        publish_variant(context.folder, variant, its, catalogue)


def plan_variant(context: StudyContext, split: Split, variant: Variant) -> Iterator[StudyRun]:
    """Yield the runs of one variant on a split."""
    candidate = make_candidate(context.settings, context.settings.models[0])
    snapshot_url = open_snapshot(store_url(context.folder, variant)).url
    augment = candidate.training.augment.model_copy(update=WITHOUT_DB)
    crop_s = variant.crop_s or candidate.training.crop_s
    for seed in context.settings.seeds:
        training = candidate.training.model_copy(update={"augment": augment, "crop_s": crop_s, "seed": seed})
        for fold in split.fold_numbers:
            columns = {
                "part": ACCURACY,
                "variant": variant.name,
                "varies": variant.part,
                "model": candidate.label,
                "split": split.kind,
                "split_seed": split.seed,
                "fold": fold,
                "seed": seed,
            }
            trial = partial(
                Trial,
                model=candidate.model,
                genres=split.genres,
                snapshot_url=snapshot_url,
                training=training,
                folder=join(context.run_folder(run_name(columns)), "training"),
            )
            prepare = partial(prepare_variant, trial, split, fold)
            yield StudyRun(columns, body=run_study_trial, prepare=prepare)


def prepare_variant(trial: Callable[..., Trial], split: Split, fold: int) -> dict[str, Any]:
    """Return the arguments of `run_study_trial`: the tracks without their locations in the product's store."""
    tracks, known_artists = assign_split(split)[fold]
    return {"trial": trial(tracks=tracks.select(TRACKS_SCHEMA.names)), "known_artists": known_artists}


def run_storage(store: str, track_ids: Sequence[str], form: StorageFormat) -> RunResult:
    """Measure a format on some tracks: the body of a run."""
    snapshot = open_snapshot(store)
    mel = MelSettings.model_validate(snapshot.mel_settings)
    mels = [np.array(snapshot.mel(track_id)) for track_id in track_ids]
    return RunResult(asdict(measure_storage(mels, form, mel.sample_rate_hz / mel.hop)))


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """Compare each variant with the product's spectrogram, and the formats with exact storage."""
    _, notes = study_genres(context, study_tracks(context), context.settings.splits)
    groups = {key[0]: its for key, its in rows_by(_of(rows, ACCURACY), "variant").items()}
    base = groups.get("base")
    tests = {
        name: paired_test(pool(context, its), pool(context, base))
        for name, its in groups.items()
        if base and name != "base"
    }
    storage = {row["variant"]: row for row in _of(rows, STORAGE)}
    return Conclusion(
        answer=" ".join(_answer(groups, tests, storage)) or "No run has finished.",
        warnings=notes,
        figures=list(_figures(groups)),
        tables=[
            StudyTable("Variants, the best first", COLUMNS, _variant_rows(groups, tests)),
            StudyTable("Formats, for an hour of audio", STORAGE_COLUMNS, _storage_rows(groups, storage)),
        ],
    )


def _of(rows: Sequence[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part]


def _variant_rows(
    groups: dict[str, list[Row]], tests: dict[str, PairedTest | None]
) -> list[tuple[object, ...]]:
    rows = []
    for name in sorted(groups, key=lambda it: -mean_of(groups[it], "accuracy")):
        its = groups[name]
        mean, std, _, _ = spread([row["accuracy"] for row in its])
        rows.append(
            (
                name,
                its[0]["varies"],
                len(its),
                mean,
                std,
                mean_of(its, "macro_f1"),
                mean_of(its, "train_s"),
                *difference_cells(tests.get(name)),
            )
        )
    return rows


def _storage_rows(groups: dict[str, list[Row]], storage: dict[str, Row]) -> list[tuple[object, ...]]:
    rows = []
    for form, row in storage.items():
        trained = groups.get("base" if form == "float32" else f"stored-{form}")
        accuracy = mean_of(trained, "accuracy") if trained else None
        rows.append((form, *(row[name] for name in STORAGE_COLUMNS[1:-1]), accuracy))
    return rows


def _answer(
    groups: dict[str, list[Row]], tests: dict[str, PairedTest | None], storage: dict[str, Row]
) -> Iterator[str]:
    accuracy = {name: mean_of(its, "accuracy") for name, its in groups.items()}
    if "base" in accuracy:
        best = max(accuracy, key=lambda name: accuracy[name])
        yield (
            f"The product's spectrogram gives {percent(accuracy['base'])} (chance "
            f"{percent(mean_of(groups['base'], 'chance'))}), the best variant, {best}, {percent(accuracy[best])}."
        )
        yield from describe_differences({name: test for name, test in tests.items() if test})
    for form, row in storage.items():
        if form.startswith("png"):
            yield (
                f"Stored as {form}, a spectrogram is wrong by {row['rms_db']:.2f} dB (root mean square; at most "
                f"{row['max_db']:.0f} dB), {percent(row['clipped_share'])} of its cells are clipped; its level is lost."
            )
        elif form != "float32":
            yield f"As {form} it is wrong by {row['rms_db']:.3f} dB, at most {row['max_db']:.2f} dB."


def describe_differences(tests: dict[str, PairedTest]) -> Iterator[str]:
    """Yield which variants differ from the product's spectrogram, or the one nearest to it; nothing of no test."""
    points = {name: f"{name} ({100 * test.difference:+.1f} points)" for name, test in tests.items()}
    differing = ", ".join(points[name] for name in name_differing(tests))
    if differing:
        yield f"Different from the product's after Holm's correction for {len(tests)} comparisons: {differing}."
    elif tests:
        least = min(tests, key=lambda name: tests[name].p)
        yield (
            f"None of the {len(tests)} variants differs from the product's after Holm's correction; the smallest p, "
            f"uncorrected, is that of {points[least]}: {tests[least].p_text}."
        )


def _figures(groups: dict[str, list[Row]]) -> Iterator[StudyFigure]:
    if groups:
        caption = "Accuracy of each variant: a dot for each fold and seed, the mean in colour, chance dotted."
        yield accuracy_figure("variants", caption, groups)
        costs = {name: (mean_of(its, "train_s"), mean_of(its, "accuracy")) for name, its in groups.items()}
        caption = "Seconds of training against accuracy."
        yield StudyFigure("cost", caption, partial(draw_cost, costs, "seconds of training"))


STUDY = Study(
    name="spectrograms",
    question="Which spectrogram, and is anything lost by storing it?",
    plan=plan,
    conclude=conclude,
    defaults={
        "models": ("shallow",),
        "splits": ("artist",),
        "seeds": (0,),
        "split_seeds": (0,),
        "tracks_per_genre": 100,
    },
    quick={
        "splits": ("official",),
        "training": {"epochs": 1, "crops_per_track": 2, "validation_crops": 2},
    },
)
