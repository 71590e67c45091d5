"""Predict the genres of a catalogue of audio files and write them as tags: a dry run, unless writing is asked for.

The flow predicts every file in batches into a plan (what each file is to get, and why), writes the tags
of the plan if that is asked for, and summarises the run on a page. A plan can also come from a file.
"""

import shlex
import shutil
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

from flows.checks import check_apart, check_tag
from flows.cluster.client import TRAINING_RESOURCE, Cluster, open_cluster
from flows.cluster.fan_out import fan_out
from flows.cluster.run_batches import run_pending_parts
from flows.cluster.settings import ClusterSettings
from flows.reporting.progress import showing_progress
from flows.reporting.stage import stage
from flows.reporting.tagging_summary import TagSummary, summarise_tagging
from flows.services.exclusive import exclusive
from flows.settings import TagSettings
from preprocessing.catalogue.audio_files import stream_audio
from preprocessing.catalogue.source_counts import SourceCounts
from store.errors import BadInput
from store.fs.files import absolute, join, local_path
from store.model_registry import read_card, resolve_version
from store.tagging.batching import batch_name, iter_batches
from store.tagging.corrections.plan import CorrectedPlan
from store.tagging.predictions import CSV_FILE, PREDICTIONS_FILE
from store.tagging.run import TaggingRun, inference_url, open_run
from store.tagging.statistics import TaggingStatistics
from store.tagging.swap.drafts import MAX_GROUP_BYTES, MAX_GROUP_FILES
from store.tagging.swap.journal import digest_file
from store.tagging.tasks import write_parts
from store.tags.genre_map import GenreMap, read_genre_map
from training.inference.model_version import read_identity
from training.inference.selection_fitting import fit_selection_rules
from training.inference.tag_task import InferenceConfig, plan_batch, reject_crashing_file
from training.report.tagging_page import RunFacts

FILES_PER_GROUP = {"cpu": 16, "cuda": 256}  # downloaded, decoded and predicted together by one task


def tag_catalogue(settings: TagSettings) -> TagSummary:
    """Predict genres and write them as tags: a dry run, unless writing is asked for. Rerun it to resume it."""
    started = time.monotonic()
    check_tag(settings)
    corrected = open_corrected_plan(settings) if settings.apply else None
    source = absolute(settings.source) if corrected is None else corrected.source
    check_copies_apart(settings, source)
    config = make_inference_config(settings) if corrected is None else None
    total = 0 if config is None else count_files(settings)
    run = open_run(absolute(settings.runs), make_request(settings, config))
    with open_cluster(choose_cluster(settings)) as cluster:
        if corrected is not None:
            parts = import_predictions(run, corrected, settings)
        else:
            assert config is not None
            parts = predict_files(cluster, run, config, total, settings)
        if not settings.is_dry_run:
            with exclusive("catalogue", absolute(settings.runs)):
                write_tags(cluster, run, parts, config, settings)
    facts = make_run_facts(run, settings, config, source, seconds=time.monotonic() - started)
    known = (
        corrected.known_genres
        if corrected is not None
        else None
        if config is None
        else config.genre_map.names
    )
    facts = replace(facts, genres=known or ())
    return summarise_tagging(
        run, "plan" if settings.is_dry_run else "done", parts, facts, exclude=settings.selection.exclude
    )


@stage
def open_corrected_plan(settings: TagSettings) -> CorrectedPlan:
    """Open the predictions to apply, as corrected. Raises: BadInput if a correction cannot be applied."""
    source = absolute(settings.source) if settings.source else ""
    plan = CorrectedPlan(absolute(settings.apply), source, absolute(settings.runs))
    if not settings.allow_new_genres:
        genre_map = read_genre_map(settings.genre_map) if settings.genre_map else GenreMap()
        version = plan.model_version()
        known = plan.known_genres or (read_model_genres(version, settings) if version is not None else ())
        plan.check_genres((*known, *genre_map.names))
    return plan


def read_model_genres(version: str, settings: TagSettings) -> tuple[str, ...]:
    """Return the genres of the model of predictions that do not name them. Raises: BadInput if it is not there."""
    try:
        return tuple(read_card(resolve_version(absolute(settings.models), version)).get("genres", ()))
    except BadInput as why:
        raise BadInput(
            f"{settings.apply}: does not contain the genres that its model has ({why}); name the folder of the model "
            "with --models, or allow all genres with --allow-new-genres"
        ) from None


def check_copies_apart(settings: TagSettings, source_url: str) -> None:
    """Check the folder of copies against the source, which applied predictions may name.

    Raises: BadInput if one of the two is within the other.
    """
    copies, source = local_path(settings.copy_to), local_path(source_url)
    if settings.copy_to and copies is not None and source is not None:
        check_apart(copies, source)


def make_inference_config(settings: TagSettings) -> InferenceConfig:
    """Choose model, genre selection and policy of a run. Raises: BadInput if the model does not support them."""
    version_url = resolve_version(absolute(settings.models), settings.model)
    identity = read_identity(version_url)
    return InferenceConfig(
        version_url=version_url,
        identity=identity,
        selection_rules=fit_selection_rules(identity, version_url, settings.genre_selection),
        policy=settings.policy,
        genre_map=choose_genre_map(settings, identity.genres),
        windows=settings.windows,
        limits=settings.limits,
        device=settings.device,
        backend=settings.backend,
        onnx_url=absolute(settings.onnx) if settings.onnx else None,
        files_per_group=FILES_PER_GROUP[settings.device],
        retry_rejects=settings.retry_rejects,
        rehearsal=settings.writing if settings.is_dry_run else None,
    )


def choose_genre_map(settings: TagSettings, genres: tuple[str, ...]) -> GenreMap:
    """Return the owner's map, or an empty one; neither merges genres of the model or those not to be touched."""
    own = GenreMap() if not settings.genre_map else read_genre_map(settings.genre_map, genres)
    return GenreMap(genres=own.genres, spellings=own.spellings, known=(*genres, *settings.policy.never_touch))


def make_request(settings: TagSettings, config: InferenceConfig | None) -> dict[str, Any]:
    """Return all settings that decide the outcome of a run: a run of the same request is resumed."""
    request = settings.model_dump(mode="json", exclude={"cluster", "runs", "limits", "files_per_batch"})
    request["model"] = "" if config is None else config.version
    request |= {
        name: absolute(request[name]) for name in ("source", "copy_to", "apply", "genre_map") if request[name]
    }
    # A file that was edited since is another request.
    digests = {f"{name}_digest": _digest(request[name]) for name in ("apply", "genre_map") if request[name]}
    return request | digests


def _digest(url: str) -> str | None:
    path = local_path(url)
    return digest_file(path).hex() if path is not None and path.is_file() else None


def choose_cluster(settings: TagSettings) -> ClusterSettings:
    """Limit a local cluster to one worker if the network runs on the GPU: that worker decodes on all cores."""
    if settings.device == "cuda" and settings.cluster.kind == "local" and not settings.cluster.workers:
        return settings.cluster.model_copy(update={"workers": 1})
    return settings.cluster


@stage
def count_files(settings: TagSettings) -> int:
    """Count the audio files, to estimate the remaining time. Raises: BadInput if there are none."""
    return sum(1 for _ in stream_audio(absolute(settings.source), rules=settings.selection.rules()))


@stage
def predict_files(
    cluster: Cluster, run: TaggingRun, config: InferenceConfig, total: int, settings: TagSettings
) -> list[str]:
    """Predict every file that is not predicted yet in its present state; return the parts of the plan in order.

    A run that has started to write keeps its plan, since the files it wrote have changed signatures.
    """
    parts = run.planned_parts()
    if parts is not None and run.has_started_writing():
        return parts
    counts = SourceCounts()
    files = stream_audio(absolute(settings.source), rules=settings.selection.rules(), counts=counts)
    statistics, first_paths = TaggingStatistics(), {}
    with showing_progress("Predicting", total, "files") as advance:
        for batch, batch_statistics in fan_out(
            cluster,
            plan_batch,
            iter_batches(
                files,
                target_size=settings.files_per_batch,
                keep_folders=settings.genre_selection.uses_albums,
            ),
            on_poison=partial(reject_crashing_file, run=run, config=config),
            run=run,
            inference_url=inference_folder(settings, config),
            config=config,
            resources={TRAINING_RESOURCE: 1} if settings.device == "cuda" else None,
        ):
            first_paths[batch_name(batch)] = batch[0].path
            statistics += batch_statistics
            advance(len(batch), statistics.summary_line())
    parts = sorted(first_paths, key=lambda part: (first_paths[part], part))
    run.complete_plan(parts, asdict(counts))
    return parts


def inference_folder(settings: TagSettings, config: InferenceConfig) -> str:
    """Name the folder of cached predictions by all that decides them."""
    return inference_url(
        absolute(settings.runs),
        {
            "source": absolute(settings.source),
            "version": config.version_url,
            "windows": config.windows.model_dump(),
            "keep_folders": settings.genre_selection.uses_albums,
            "files_per_batch": settings.files_per_batch,
        },
    )


@stage
def import_predictions(run: TaggingRun, corrected: CorrectedPlan, settings: TagSettings) -> list[str]:
    """Import the predictions of an earlier run, as corrected since; return the parts of the plan in order."""
    parts = run.planned_parts()
    if parts is not None and run.has_started_writing():
        return parts
    parts = []
    for number, table in enumerate(corrected.tables(settings.files_per_batch)):
        parts.append(f"{number:08d}")
        run.write_part("plan", parts[-1], table)
    run.complete_plan(parts)
    return parts


@stage
def write_tags(
    cluster: Cluster,
    run: TaggingRun,
    parts: list[str],
    config: InferenceConfig | None,
    settings: TagSettings,
) -> None:
    """Write the genres of the plan into the files or their copies, atomically for each."""
    run_pending_parts(
        cluster,
        "Tagging",
        write_parts,
        parts,
        count_files=partial(run.count_files, "plan"),
        run=run,
        settings=settings.writing,
        copy_to=absolute(settings.copy_to) if settings.copy_to else None,
        inference_url=None if config is None else inference_folder(settings, config),
    )


def make_run_facts(
    run: TaggingRun, settings: TagSettings, config: InferenceConfig | None, source: str, *, seconds: float
) -> RunFacts:
    """Return the facts that the page of a run shows beside the counts, with the next steps."""
    predictions = join(run.url, PREDICTIONS_FILE)
    mode: Literal["dry-run", "copy", "write"] = (
        "dry-run" if settings.is_dry_run else "copy" if settings.copy_to else "write"
    )
    return RunFacts(
        name=run.name,
        mode=mode,
        source=source,
        seconds=seconds,
        predictions=predictions,
        csv_url=join(run.url, CSV_FILE),
        model="" if config is None else config.version,
        commands=next_commands(run, mode, predictions, settings.runs),
        notes=(
            *(() if config is None else config.selection_rules.notes),
            *(disk_notes(source) if mode != "copy" else ()),
        ),
        settings=settings.model_dump(mode="json", exclude={"cluster", "limits"}),
    )


def disk_notes(source: str) -> list[str]:
    """Return a warning if the disk of the files has less room than a group of drafts may take."""
    path = local_path(source)
    free = None if path is None or not path.exists() else shutil.disk_usage(path).free
    if free is None or free >= MAX_GROUP_BYTES:
        return []
    return [
        f"{source}: {free / 2**20:,.0f} MiB are free on this disk; writing needs room for copies of up to "
        f"{MAX_GROUP_FILES} files at a time, and stops, all files whole, when the disk is full"
    ]


def next_commands(run: TaggingRun, mode: str, predictions: str, runs: str) -> list[tuple[str, str]]:
    """Return what can be done after a run: in words, and as a command line."""
    where = f"--runs {shlex.quote(runs)}"
    undo = f"spectrogram-one undo {run.name} {where}"
    if mode == "dry-run":
        table = join(run.url, CSV_FILE)
        return [
            ("write these genres", f"spectrogram-one tag --apply {shlex.quote(predictions)} {where}"),
            (
                "correct genres first, edit the columns genres and apply of the CSV file, then",
                f"spectrogram-one tag --apply {shlex.quote(table)} {where}",
            ),
        ]
    if mode == "write" and run.has_journal():
        return [("undo the run", undo), ("see what an undo would do", f"{undo} --dry-run")]
    return []
