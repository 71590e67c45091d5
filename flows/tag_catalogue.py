"""Predict the genres of a catalogue of audio files and write them as tags: a dry run, unless writing is asked for.

The flow predicts every file in batches into a plan (what each file is to get, and why), writes the tags
of the plan if that is asked for, and summarises the run on a page. A plan can also come from a file.
"""

import shlex
import time
from dataclasses import asdict
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
from flows.settings import TagSettings
from preprocessing.catalogue.audio_files import stream_audio
from preprocessing.catalogue.source_counts import SourceCounts
from store.fs.files import absolute, join, local_path
from store.model_registry import resolve_version
from store.tagging.batching import batch_name, iter_batches
from store.tagging.journal import digest_file
from store.tagging.predictions import read_plan
from store.tagging.run import TaggingRun, inference_url, open_run
from store.tagging.statistics import TaggingStatistics
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
    check_copies_apart(settings)
    config = None if settings.apply else make_inference_config(settings)
    total = 0 if config is None else count_files(settings)
    run = open_run(absolute(settings.runs), make_request(settings, config))
    with open_cluster(choose_cluster(settings)) as cluster:
        if config is None:
            parts = import_predictions(run, settings)
        else:
            parts = predict_files(cluster, run, config, total, settings)
        if not settings.is_dry_run:
            write_tags(cluster, run, parts, config, settings)
    facts = make_run_facts(run, settings, config, seconds=time.monotonic() - started)
    return summarise_tagging(
        run, "plan" if settings.is_dry_run else "done", parts, facts, exclude=settings.selection.exclude
    )


def resolve_source(settings: TagSettings) -> str:
    """Return the folder of the files. Raises: BadInput if predictions are to be applied that do not name it."""
    source = absolute(settings.source) if settings.source else ""
    return read_plan(settings.apply, source, 1)[0] if settings.apply else source


def check_copies_apart(settings: TagSettings) -> None:
    """Check the folder of copies against the source, which applied predictions may name.

    Raises: BadInput if one of the two is within the other.
    """
    copies, source = local_path(settings.copy_to), local_path(resolve_source(settings))
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
        genre_map=read_genre_map(settings.genre_map, identity.genres) if settings.genre_map else GenreMap(),
        windows=settings.windows,
        limits=settings.limits,
        device=settings.device,
        backend=settings.backend,
        onnx_url=absolute(settings.onnx) if settings.onnx else None,
        files_per_group=FILES_PER_GROUP[settings.device],
        retry_rejects=settings.retry_rejects,
    )


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
                keep_folders=settings.genre_selection.smooth_albums,
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
            "keep_folders": settings.genre_selection.smooth_albums,
            "files_per_batch": settings.files_per_batch,
        },
    )


@stage
def import_predictions(run: TaggingRun, settings: TagSettings) -> list[str]:
    """Import the predictions of an earlier run, as edited since; return the parts of the plan in order.

    Raises: BadInput if the file of predictions cannot be used.
    """
    parts = run.planned_parts()
    if parts is not None and run.has_started_writing():
        return parts
    parts = []
    _, tables = read_plan(settings.apply, resolve_source(settings), settings.files_per_batch)
    for number, table in enumerate(tables):
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
        run=run,
        settings=settings.writing,
        copy_to=absolute(settings.copy_to) if settings.copy_to else None,
        inference_url=None if config is None else inference_folder(settings, config),
    )


def make_run_facts(
    run: TaggingRun, settings: TagSettings, config: InferenceConfig | None, *, seconds: float
) -> RunFacts:
    """Return the facts that the page of a run shows beside the counts, with the next steps."""
    predictions = join(run.url, "predictions.parquet")
    mode: Literal["dry-run", "copy", "write"] = (
        "dry-run" if settings.is_dry_run else "copy" if settings.copy_to else "write"
    )
    return RunFacts(
        name=run.name,
        mode=mode,
        source=resolve_source(settings),
        seconds=seconds,
        predictions=predictions,
        csv_url=join(run.url, "predictions.csv"),
        model="" if config is None else config.version,
        commands=next_commands(run, mode, predictions, settings.runs),
        notes=() if config is None else config.selection_rules.notes,
        settings=settings.model_dump(mode="json", exclude={"cluster", "limits"}),
    )


def next_commands(run: TaggingRun, mode: str, predictions: str, runs: str) -> list[tuple[str, str]]:
    """Return what can be done after a run: in words, and as a command line."""
    where = f"--runs {shlex.quote(runs)}"
    undo = f"spectrogram-one undo {run.name} {where}"
    if mode == "dry-run":
        return [("write these genres", f"spectrogram-one tag --apply {shlex.quote(predictions)} {where}")]
    if mode == "write" and run.has_journal():
        return [("undo the run", undo), ("see what an undo would do", f"{undo} --dry-run")]
    return []
