"""Listen to a catalogue of audio and write the genres in: a dry run, unless told to write."""

import shlex
import time
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

FILES_PER_GROUP = {"cpu": 16, "cuda": 256}  # fetched, decoded and heard together by one task


def tag_catalogue(settings: TagSettings) -> TagSummary:
    """Listen to a catalogue of audio and write the genres in: a dry run, unless told to write."""
    begun = time.monotonic()
    check_tag(settings)
    check_copies_apart(settings)
    config = None if settings.apply else make_inference_config(settings)
    total = count_files(absolute(settings.source)) if config is not None else 0
    run = open_run(absolute(settings.runs), make_request(settings, config))
    with open_cluster(choose_cluster(settings)) as cluster:
        if config is None:
            parts, heard = import_predictions(run, settings), None
        else:
            parts, heard = (
                predict_files(cluster, run, config, total, settings),
                inference_folder(settings, config),
            )
        if not settings.is_dry_run:
            write_tags(cluster, run, parts, heard, settings)
    facts = make_run_facts(run, settings, config, seconds=time.monotonic() - begun)
    return summarise_tagging(run, "plan" if settings.is_dry_run else "done", parts, facts)


def resolve_source(settings: TagSettings) -> str:
    """Say where the files lie. Raises: BadInput if predictions are to be applied that do not say it."""
    source = absolute(settings.source) if settings.source else ""
    return read_plan(settings.apply, source, 1)[0] if settings.apply else source


def check_copies_apart(settings: TagSettings) -> None:
    """Raises: BadInput if copies would lie within the source that applied predictions name, or it within them."""
    copies, source = local_path(settings.copy_to), local_path(resolve_source(settings))
    if settings.copy_to and copies is not None and source is not None:
        check_apart(copies, source)


def make_inference_config(settings: TagSettings) -> InferenceConfig:
    """Say who listens and how it answers. Raises: BadInput if the model cannot do what is asked for."""
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
    """Say what decides the outcome of a run: asked for the same again, it is resumed."""
    asked = settings.model_dump(mode="json", exclude={"cluster", "runs", "limits", "files_per_batch"})
    asked["model"] = "" if config is None else config.version
    asked |= {
        name: absolute(asked[name]) for name in ("source", "copy_to", "apply", "genre_map") if asked[name]
    }
    # A file that was corrected meanwhile asks for something else.
    return asked | {f"{name}_digest": _digest(asked[name]) for name in ("apply", "genre_map") if asked[name]}


def _digest(url: str) -> str | None:
    path = local_path(url)
    return digest_file(path).hex() if path is not None and path.is_file() else None


def choose_cluster(settings: TagSettings) -> ClusterSettings:
    """Start one local worker where it is to listen on the GPU: it decodes on all cores by itself."""
    if settings.device == "cuda" and settings.cluster.kind == "local" and not settings.cluster.workers:
        return settings.cluster.model_copy(update={"workers": 1})
    return settings.cluster


@stage
def count_files(source: str) -> int:
    """Count the audio files, to tell how long it will take. Raises: BadInput if there are none."""
    return sum(1 for _ in stream_audio(source))


@stage
def predict_files(
    cluster: Cluster, run: TaggingRun, config: InferenceConfig, total: int, settings: TagSettings
) -> list[str]:
    """Let the model listen to every file that it has not heard as it is now; give the parts of the plan in order.

    A run that has begun to write keeps its plan: files it wrote look as if they had changed.
    """
    parts = run.planned_parts()
    if parts is not None and run.has_started_writing():
        return parts
    files = stream_audio(absolute(settings.source))
    told, named = TaggingStatistics(), []
    with showing_progress("Listening", total, "files") as advance:
        for batch, its_tally in fan_out(
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
            named.append((batch[0].path, batch_name(batch)))
            told += its_tally
            advance(len(batch), told.summary_line())
    parts = [name for _, name in sorted(named)]
    run.complete_plan(parts)
    return parts


def inference_folder(settings: TagSettings, config: InferenceConfig) -> str:
    """Name the folder of what was heard, by all that decides what is heard."""
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
    """Take over what an earlier run said, and what a person made of it; give the parts of the plan in order.

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
    cluster: Cluster, run: TaggingRun, parts: list[str], heard: str | None, settings: TagSettings
) -> None:
    """Write the genres into the files or their copies, all or nothing for each."""
    run_pending_parts(
        cluster,
        "Tagging",
        write_parts,
        parts,
        run=run,
        settings=settings.writing,
        copy_to=absolute(settings.copy_to) if settings.copy_to else None,
        inference_url=heard,
    )


def make_run_facts(
    run: TaggingRun, settings: TagSettings, config: InferenceConfig | None, *, seconds: float
) -> RunFacts:
    """Say of a run what its page says beside the counts, and what can be done next."""
    predictions, runs = join(run.url, "predictions.parquet"), shlex.quote(settings.runs)
    undo = f"spectrogram-one undo {run.name} --runs {runs}"
    undoing = [("take it all back", undo), ("see what that would do", f"{undo} --dry-run")]
    commands = {
        "dry-run": [
            ("write what it says", f"spectrogram-one tag --apply {shlex.quote(predictions)} --runs {runs}")
        ],
        "write": undoing if run.has_journal() else [],
        "copy": [],
    }
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
        commands=commands[mode],
        notes=() if config is None else config.selection_rules.notes,
        settings=settings.model_dump(mode="json", exclude={"cluster", "limits"}),
    )
