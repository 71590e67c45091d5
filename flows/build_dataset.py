"""Turn an audio catalogue into published spectrograms. Rerun it to resume it."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, Field

from flows.cluster import ClusterSettings, dask_client
from flows.fan_out import fan_out, in_batches
from flows.progress import show_table, showing_progress
from preprocessing.build import BuiltBatch, SpectrogramSettings, Track, build_shard
from preprocessing.catalogue import CatalogueSettings, read_catalogue
from store.dataset import INDEX_SCHEMA, Recipe, SnapshotFile, latest_snapshot, publish
from store.errors import BadInput, CommitConflict
from store.files import absolute
from store.reader import Snapshot, open_snapshot

ENOUGH_TO_JUDGE = 20  # tracks tried before a share of rejects means anything
PUBLISH_TRIES = 5
MAY_BE_MENDED = ("missing", "no-permission")  # rejects that say nothing of the file itself
SHOWN_REJECTS = 1_000  # in the UI; the snapshot names them all
REJECT_COLUMNS = ("track_id", "reason", "detail", "url")  # the widest last


class BuildSettings(BaseModel, frozen=True, extra="forbid"):
    """What to build spectrograms of, how, and where to."""

    source: str = Field(description="Folder or URL of the audio: FMA's layout, a folder per genre, or any")
    store: str = Field("data/store", description="Folder or URL of the spectrogram store")
    catalogue: CatalogueSettings = CatalogueSettings()
    spectrogram: SpectrogramSettings = SpectrogramSettings()
    tracks_per_batch: int = Field(64, ge=1, le=10_000, description="Tracks that one task builds into a shard")
    batches_per_commit: int = Field(32, ge=1, description="Batches after which a snapshot is published")
    max_reject_share: float = Field(
        0.1, ge=0.0, le=1.0, description="Stop if a greater share of the tracks than this cannot be decoded"
    )
    retry_rejects: bool = Field(False, description="Try tracks again that were rejected before")
    cluster: ClusterSettings = ClusterSettings()


class BuildSummary(BaseModel, frozen=True):
    """What a store holds after a build, and what this build did."""

    store: str
    snapshot: int
    tracks: int = Field(description="Tracks that have a spectrogram")
    hours: float = Field(description="Hours of audio they play")
    built_now: int
    seconds: float
    rejects: list[dict[str, str]] = Field(
        description="track_id, url, reason and detail of each rejected track"
    )

    def lines(self) -> list[str]:
        """Tell it in lines for a terminal."""
        told = [
            f"{self.store}: {self.tracks:,} tracks, {self.hours:.2f} h of audio (snapshot {self.snapshot}); "
            f"{self.built_now:,} built now in {self.seconds:.0f} s; {len(self.rejects):,} rejected"
        ]
        return told + [f"  rejected {it['url']}: {it['reason']} ({it['detail']})" for it in self.rejects[:20]]


@flow(name="build-dataset")
def build_dataset(settings: BuildSettings) -> BuildSummary:
    """Turn an audio catalogue into published spectrograms. Rerun it to resume it."""
    begun = time.monotonic()
    refuse_other_store(settings)
    catalogue = list_tracks(settings)
    answers = standing_answers(catalogue, settings)
    built_now = build_shards(left_to_do(catalogue, answers), answers, catalogue, settings)
    return summarise(settings, built_now, seconds=time.monotonic() - begun)


def refuse_other_store(settings: BuildSettings) -> SnapshotFile | None:
    """Read the latest snapshot of the store. Raises: BadInput if it is of another source or other settings."""
    latest = latest_snapshot(settings.store)
    if latest is not None and latest.settings["source"] != absolute(settings.source):
        raise BadInput(
            f"{settings.store}: holds spectrograms of {latest.settings['source']} (wanted "
            f"{absolute(settings.source)}); name another store"
        )
    wanted = settings.spectrogram.recipe()
    if latest is not None and latest.recipe != wanted:
        raise BadInput(
            f"{settings.store}: was built with {_differences(latest.recipe, wanted)}; "
            "use the settings it has, or name another store"
        )
    return latest


@task(cache_policy=NO_CACHE)
def list_tracks(settings: BuildSettings) -> pa.Table:
    """Read the catalogue of the source."""
    return read_catalogue(settings.source, settings.catalogue)


def standing_answers(catalogue: pa.Table, settings: BuildSettings) -> pa.Table:
    """List what the store says of the catalogue's tracks (INDEX_SCHEMA), but for what is to be tried again.

    A file of another size than before is another file. One that was missing or forbidden may be there now.
    """
    if latest_snapshot(settings.store) is None:
        return INDEX_SCHEMA.empty_table()
    before = open_snapshot(settings.store).tracks
    sizes = dict(zip(catalogue["track_id"].to_pylist(), catalogue["size_bytes"].to_pylist(), strict=True))
    stands = [
        row["status"] is not None
        and row["track_id"] in sizes
        and sizes[row["track_id"]] == row["size_bytes"]
        and row["reason"] not in MAY_BE_MENDED
        and not (settings.retry_rejects and row["status"] == "rejected")
        for row in before.select(["track_id", "size_bytes", "status", "reason"]).to_pylist()
    ]
    return before.filter(pa.array(stands, pa.bool_())).select(INDEX_SCHEMA.names)


def left_to_do(catalogue: pa.Table, answers: pa.Table) -> list[Track]:
    """List the tracks that the store has no answer for yet."""
    done = set(answers["track_id"].to_pylist())
    ids, urls = (catalogue[name].to_pylist() for name in ("track_id", "url"))
    return [Track(track_id, url) for track_id, url in zip(ids, urls, strict=True) if track_id not in done]


@task(cache_policy=NO_CACHE)
def build_shards(todo: list[Track], answers: pa.Table, catalogue: pa.Table, settings: BuildSettings) -> int:
    """Fan the batches out over Dask and publish what comes back; count the tracks tried.

    Raises: BadInput if too many tracks are rejected; those of earlier commits stay published.

    Whatever else ends it (Ctrl-C, a full disk), the batches finished by then are published.
    """
    if not todo:
        _publish_catalogue(catalogue, settings)
        return 0
    waiting: list[BuiltBatch] = []
    tried, rejected = 0, _count_rejects(answers)
    with dask_client(settings.cluster) as dask, showing_progress("Building", len(todo), "tracks") as advance:
        batches = in_batches(todo, settings.tracks_per_batch)
        with closing(
            fan_out(dask, build_shard, batches, settings=settings.spectrogram, root=absolute(settings.store))
        ) as results:
            try:
                for tracks, built in results:
                    tried += len(tracks)
                    rejected += _count_rejects(built.index)
                    advance(len(tracks), f"{rejected:,} rejected")
                    final = tried == len(todo)
                    _refuse_too_many(rejected, len(answers) + tried, settings, final=final, waiting=waiting)
                    waiting.append(built)
                    if len(waiting) == settings.batches_per_commit:
                        _publish_batches(waiting, catalogue, settings)
            finally:
                _publish_batches(waiting, catalogue, settings)
    return tried


def _count_rejects(index: pa.Table) -> int:
    return list(index["status"].to_pylist()).count("rejected")


def _refuse_too_many(
    rejected: int, tried: int, settings: BuildSettings, *, final: bool, waiting: list[BuiltBatch]
) -> None:
    share = rejected / tried
    if share > settings.max_reject_share and (final or tried >= ENOUGH_TO_JUDGE):
        waiting.clear()  # what a broken disk or a wrong folder made of them must not count as an answer
        raise BadInput(
            f"{settings.source}: {rejected:,} of {tried:,} tracks ({share:.0%}) cannot be decoded; at most "
            f"{settings.max_reject_share:.0%} may be: look at the files, or raise max_reject_share"
        )


def _publish_batches(waiting: list[BuiltBatch], catalogue: pa.Table, settings: BuildSettings) -> None:
    """Publish the batches that wait, on top of whatever is the latest snapshot, and empty the list."""
    if not waiting:
        return
    shards = [built.shard.name for built in waiting if built.shard is not None]
    _publish_on_top(shards, pa.concat_tables(built.index for built in waiting), catalogue, settings)
    waiting.clear()


def _publish_catalogue(catalogue: pa.Table, settings: BuildSettings) -> None:
    """Publish labels and splits that changed though no track is new."""
    if not open_snapshot(settings.store).catalogue.equals(catalogue):
        _publish_on_top([], INDEX_SCHEMA.empty_table(), catalogue, settings)


def _publish_on_top(
    shards: Iterable[str], index: pa.Table, catalogue: pa.Table, settings: BuildSettings
) -> None:
    for left in reversed(range(PUBLISH_TRIES)):
        try:
            publish(
                settings.store,
                parent=refuse_other_store(settings),
                shards=shards,
                index=index,
                catalogue=catalogue,
                recipe=settings.spectrogram.recipe(),
                settings={**settings.model_dump(mode="json"), "source": absolute(settings.source)},
            )
            return
        except CommitConflict:
            if not left:
                raise


def summarise(settings: BuildSettings, built_now: int, *, seconds: float) -> BuildSummary:
    """Say what the store holds now, in the Prefect UI as well."""
    snapshot = open_snapshot(settings.store)
    summary = BuildSummary(
        store=settings.store,
        snapshot=snapshot.number,
        tracks=len(snapshot.track_ids),
        hours=(pc.sum(snapshot.tracks["decoded_s"]).as_py() or 0.0) / 3600,
        built_now=built_now,
        seconds=seconds,
        rejects=rejects_of(snapshot),
    )
    show_result(summary)
    return summary


def show_result(summary: BuildSummary) -> None:
    """Put the result on the page of the run in the Prefect UI; of long texts it cuts the end off."""
    row = {
        "tracks": f"{summary.tracks:,}",
        "hours of audio": f"{summary.hours:,.2f}",
        "rejected": f"{len(summary.rejects):,}",
        "tried now": f"{summary.built_now:,}",
        "seconds": f"{summary.seconds:.0f}",
        "snapshot": summary.snapshot,
        "store": summary.store,
    }
    show_table("build-result", [row], f"{row['tracks']} tracks have a spectrogram")
    reasons = Counter(it["reason"] for it in summary.rejects).most_common()
    show_table(
        "rejected-tracks",
        [{name: it[name] for name in REJECT_COLUMNS} for it in summary.rejects[:SHOWN_REJECTS]],
        ", ".join(f"{count:,} {reason}" for reason, count in reasons) or "No track was rejected",
    )


def rejects_of(snapshot: Snapshot) -> list[dict[str, str]]:
    """List the tracks that have no spectrogram, and why."""
    rejected = snapshot.tracks.filter(pc.equal(snapshot.tracks["status"], "rejected"))
    rows: list[dict[str, str]] = rejected.select(["track_id", "url", "reason", "detail"]).to_pylist()
    return rows


def _differences(have: Recipe, want: Recipe) -> str:
    """Name the settings in which two recipes differ: "hop 512 (wanted 256)"."""
    ours, theirs = (
        {**recipe.mel_settings, **recipe.excerpt, "encoding": recipe.encoding} for recipe in (have, want)
    )
    return ", ".join(
        f"{name} {ours[name]} (wanted {theirs[name]})" for name in ours if ours[name] != theirs[name]
    )
