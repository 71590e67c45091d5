"""Listen to a folder of audio and write the genres in: a dry run, unless told to write."""

import hashlib
import time
from collections import Counter
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from distributed import Client
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, Field, model_validator

from flows.cluster import ClusterSettings, dask_client
from flows.fan_out import fan_out, in_batches
from flows.progress import show_table, showing_progress
from preprocessing.build import Track
from preprocessing.catalogue import CatalogueSettings, read_catalogue
from preprocessing.spectrogram import ExcerptSettings, LimitSettings
from store.errors import BadInput
from store.files import absolute, join, local_path
from store.models import find_version
from store.predictions import (
    PREDICTIONS_SCHEMA,
    keep_heard,
    read_heard,
    signature,
    write_predictions,
    write_tags,
)
from training.predict import ModelIdentity, listen, read_identity

FILES_PER_BATCH = 16
SHOWN_CHANGES = 50


class TagSettings(BaseModel, frozen=True, extra="forbid"):
    """What to listen to, with which model, and what to do with what it says."""

    source: str = Field(description="Folder of audio files; folders in it are looked through, too")
    write: bool = Field(False, description="Write genres into the files themselves")
    copy_to: str = Field("", description="Write genres into copies of the files, in this folder")
    models: str = Field("data/models", description="Folder or URL where model versions are kept")
    model: str = Field("champion", description="champion, latest, or the name of a model version")
    genres: tuple[str, ...] = Field((), description="Write these genres only; empty for all the model knows")
    policy: Literal["fill", "replace"] = Field(
        "fill", description="fill: only files that have no genre; replace: all files"
    )
    min_confidence: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Leave a file alone if the likeliest genre is less probable than this",
    )
    excerpt: ExcerptSettings = ExcerptSettings()
    limits: LimitSettings = LimitSettings()
    runs: str = Field("data/tagging", description="Folder or URL where predictions are kept")
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _one_way_of_writing(self) -> "TagSettings":
        if self.write and self.copy_to:
            raise ValueError("both write and copy_to are given; choose one: the files themselves, or copies")
        return self


class TagSummary(BaseModel, frozen=True):
    """What a tagging run did, or would do."""

    source: str
    model: str
    dry_run: bool
    predictions: str = Field(description="Where the Parquet file with a row for each file is")
    statuses: dict[str, int] = Field(description="How many files ended how")
    genres: dict[str, int] = Field(description="How many files get which genre")
    changes: list[dict[str, str]] = Field(
        description="The first files with what they get, or why they failed"
    )
    seconds: float

    def lines(self) -> list[str]:
        """Tell it in lines for a terminal."""
        counts = ", ".join(f"{count:,} {status}" for status, count in sorted(self.statuses.items()))
        last = "nothing was written: add --write or --copy-to DIR to do it" if self.dry_run else ""
        told = [
            f"{self.source}: {counts} ({self.model}, {self.seconds:.0f} s)",
            f"all files: {self.predictions}",
        ]
        return [*told, *([last] if last else [])]


@flow(name="tag-catalogue")
def tag_catalogue(settings: TagSettings) -> TagSummary:
    """Listen to a folder of audio and write the genres in: a dry run, unless told to write."""
    begun = time.monotonic()
    version_url = find_version(absolute(settings.models), settings.model)
    identity = read_identity(version_url)
    refuse_unknown_genres(settings, identity)
    files = list_files(settings)
    run_url = name_run(settings, version_url)
    with dask_client(settings.cluster) as dask:
        listen_to_files(dask, files, run_url, version_url, identity, settings)
        predictions = decide(files, run_url, settings)
        if settings.write or settings.copy_to:
            predictions = write_to_files(dask, predictions, settings)
    kept_at = write_predictions(run_url, predictions)
    return summarise(predictions, kept_at, version_url, settings, seconds=time.monotonic() - begun)


def refuse_unknown_genres(settings: TagSettings, identity: ModelIdentity) -> None:
    """Raises: BadInput if the model is asked for a genre it never learned."""
    for genre in settings.genres:
        if genre not in identity.genres:
            raise BadInput(
                f"genre {genre!r}: this model never learned it; it knows {', '.join(identity.genres)}"
            )


@task(cache_policy=NO_CACHE)
def list_files(settings: TagSettings) -> list[Track]:
    """Find the audio files below the source. Raises: BadInput if it is not a local folder with some."""
    source, copies = local_path(settings.source), local_path(settings.copy_to or "unused")
    for given, path in ((settings.source, source), (settings.copy_to, copies)):
        if path is None:
            raise BadInput(f"{given}: tags are written to local files; name a folder on this machine")
    assert source is not None
    assert copies is not None
    if settings.copy_to and copies.resolve().is_relative_to(source.resolve()):
        raise BadInput(f"{copies}: copies would lie within their source {source}; name a folder outside it")
    files = read_catalogue(str(source), CatalogueSettings(kind="flat"))
    ids, urls = files["track_id"].to_pylist(), files["url"].to_pylist()
    return [Track(track_id, url) for track_id, url in zip(ids, urls, strict=True)]


def name_run(settings: TagSettings, version_url: str) -> str:
    """Name the run's folder after all that decides what is heard: the same again resumes it."""
    decisive = (absolute(settings.source), version_url, settings.excerpt.model_dump_json(), settings.policy)
    return join(absolute(settings.runs), hashlib.sha256(repr(decisive).encode()).hexdigest()[:12])


@task(cache_policy=NO_CACHE)
def listen_to_files(
    dask: Client,
    files: list[Track],
    run_url: str,
    version_url: str,
    identity: ModelIdentity,
    settings: TagSettings,
) -> None:
    """Let the model listen to every file that it has not heard as it is now, and keep what it says."""
    known = _still_true(read_heard(run_url))
    left = [file for file in files if file.track_id not in known]
    if not left:
        return
    statuses: Counter[str] = Counter()
    with showing_progress("Listening", len(left), "files") as advance:
        for batch, heard in fan_out(
            dask,
            listen,
            in_batches(left, FILES_PER_BATCH),
            version_url=version_url,
            identity=identity,
            excerpt=settings.excerpt,
            limits=settings.limits,
            skip_tagged=settings.policy == "fill",
        ):
            keep_heard(run_url, heard)
            statuses.update(heard["status"].to_pylist())
            advance(len(batch), f"{statuses['rejected']:,} rejected, {statuses['kept']:,} kept")


@task(cache_policy=NO_CACHE)
def decide(files: list[Track], run_url: str, settings: TagSettings) -> pa.Table:
    """Take what was heard of each file and say what is to change: PREDICTIONS_SCHEMA, in order of names."""
    known = _still_true(read_heard(run_url))
    changed = {"status": "failed", "reason": "changed", "detail": "the file changed while the run went on"}
    rows = [
        _decide_one(
            known.get(file.track_id) or {"track_id": file.track_id, "url": file.url, **changed}, settings
        )
        for file in files
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA)


def _decide_one(row: dict[str, Any], settings: TagSettings) -> dict[str, Any]:
    if row["status"] != "change":
        return row
    genres = [genre for genre in row["genres"] if not settings.genres or genre in settings.genres]
    if not genres:
        return {**row, "status": "unsure", "reason": "not-asked-for", "detail": ", ".join(row["genres"])}
    if row["confidence"] < settings.min_confidence:
        return {**row, "status": "unsure", "reason": "low-confidence", "detail": f"{row['confidence']:.2f}"}
    if genres == row["old_genres"]:
        return {**row, "status": "kept", "reason": "has-genre", "detail": ", ".join(genres)}
    return {**row, "genres": genres}


@task(cache_policy=NO_CACHE)
def write_to_files(dask: Client, predictions: pa.Table, settings: TagSettings) -> pa.Table:
    """Write the genres into the files or their copies, all or nothing for each."""
    is_change = pc.equal(predictions["status"], "change")
    changes = predictions.filter(is_change).to_pylist()
    copy_to = absolute(settings.copy_to) if settings.copy_to else None
    parts = [predictions.filter(pc.invert(is_change))]
    with showing_progress("Tagging", len(changes), "files") as advance:
        for batch, written in fan_out(
            dask, write_tags, in_batches(changes, FILES_PER_BATCH), copy_to=copy_to
        ):
            parts.append(written)
            advance(len(batch), "")
    return pa.concat_tables(parts).sort_by("track_id")


def summarise(
    predictions: pa.Table, kept_at: str, version_url: str, settings: TagSettings, *, seconds: float
) -> TagSummary:
    """Say what was done or would be, in the Prefect UI as well."""
    changes = predictions.filter(
        pc.is_in(predictions["status"], value_set=pa.array(["change", "written", "copied", "failed"]))
    )
    genres = Counter(genre for row in changes["genres"].to_pylist() for genre in row or [])
    summary = TagSummary(
        source=settings.source,
        model=version_url.rsplit("/", 1)[-1],
        dry_run=not (settings.write or settings.copy_to),
        predictions=kept_at,
        statuses=dict(Counter(predictions["status"].to_pylist())),
        genres=dict(genres.most_common()),
        changes=[_change(row) for row in changes.slice(0, SHOWN_CHANGES).to_pylist()],
        seconds=seconds,
    )
    show_table("tagging-changes", summary.changes, summary.lines()[0])
    return summary


def _change(row: dict[str, Any]) -> dict[str, str]:
    return {
        "file": row["track_id"],
        "had": ", ".join(row["old_genres"] or []),
        "gets": ", ".join(row["genres"] or []),
        "confidence": "" if row["confidence"] is None else f"{row['confidence']:.2f}",
        "status": row["status"] if row["status"] != "failed" else f"failed: {row['detail']}",
    }


def _still_true(heard: pa.Table) -> dict[str, dict[str, Any]]:
    """Keep the row of each file that is still as it was when it was listened to."""
    return {row["track_id"]: row for row in heard.to_pylist() if _signature(row["url"]) == _seen(row)}


def _seen(row: dict[str, Any]) -> tuple[int, int, int]:
    return row["size_bytes"], row["mtime_ns"], row["ctime_ns"]


def _signature(url: str) -> tuple[int, int, int] | None:
    path = local_path(url)
    assert path is not None, "only local files are listed"
    try:
        return signature(path)
    except (FileNotFoundError, PermissionError):
        return None
