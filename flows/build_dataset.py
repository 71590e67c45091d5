"""Turn an audio catalogue into published spectrograms. Rerun it to resume it.

The flow reads the catalogue, skips the tracks that the store has already, builds the others in batches
(each batch one immutable shard), publishes a snapshot every few batches, and at the end assigns each track of
the whole catalogue to training, validation or test (a track keeps the split that an earlier build gave it).
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.checks import check_build
from flows.cluster.client import Cluster, open_cluster
from flows.cluster.fan_out import fan_out
from flows.reporting.build_report import BuildStatistics, BuildSummary, report_build
from flows.reporting.progress import showing_progress
from flows.reporting.stage import stage
from flows.services.exclusive import exclusive
from flows.settings import BuildSettings
from preprocessing.build.batches import plan_batches
from preprocessing.build.shard_task import BuiltBatch, Track, build_shard, hash_files, reject_crashing_track
from preprocessing.catalogue.duplicates import add_duplicate_groups
from preprocessing.catalogue.previous_splits import read_previous_splits
from preprocessing.catalogue.source_counts import SourceCounts
from preprocessing.catalogue.sources import read_catalogue
from preprocessing.catalogue.splits import find_cross_split_duplicates, resolve_split_mode, split_tracks
from preprocessing.errors import RETRYABLE_REASONS
from store.dataset.concatenation import link_concatenation
from store.dataset.parts import part_rows
from store.dataset.recipe import Recipe
from store.dataset.shards import Shard
from store.dataset.snapshots import INDEX_SCHEMA, SnapshotFile, latest_snapshot, publish, put_catalogue
from store.dataset.verification import verify
from store.errors import BadInput, CommitConflict
from store.fs.files import absolute
from store.reader import Snapshot, open_snapshot

# Fewer tracks say little about the share of rejects, since the longest are built first.
MIN_TRACKS_FOR_REJECT_SHARE = 300
MAX_PUBLISH_ATTEMPTS = 5


@dataclass(frozen=True)
class CompletedTracks:
    """The tracks of the catalogue that the store has a valid result for, and how many of them are rejects."""

    is_completed: NDArray[np.bool_]  # one per row of the catalogue
    rejected: int

    damaged: int = 0  # tracks that would be completed if their spectrograms were not damaged

    @property
    def count(self) -> int:
        """The number of tracks that need not be built."""
        return int(self.is_completed.sum())

    def without(self, is_damaged: NDArray[np.bool_]) -> "CompletedTracks":
        """Return the completed tracks that are not damaged."""
        damaged = int((self.is_completed & is_damaged).sum())
        return CompletedTracks(self.is_completed & ~is_damaged, self.rejected, damaged)


def build_dataset(settings: BuildSettings) -> BuildSummary:
    """Turn an audio catalogue into published spectrograms. Rerun it to resume it."""
    check_build(settings)
    started = time.monotonic()
    with exclusive("store", absolute(settings.store)):
        read_matching_snapshot(settings)  # refuses a store of another source or other settings
        catalogue, counts = list_tracks(settings)
        check_missing_files(catalogue, settings)
        completed = find_completed_tracks(catalogue, settings)
        if settings.repair:
            completed = completed.without(find_damaged_tracks(catalogue, settings))
        previous_splits = read_previous_splits(settings.store, catalogue, settings.catalogue.split)
        statistics = build_shards(catalogue, completed, previous_splits, settings)
        left_out = publish_splits(catalogue, previous_splits, settings)
        link_concatenation(settings.store)  # all shards as one Zarr array, for other readers
    seconds = time.monotonic() - started
    return summarise_build(
        statistics, settings, counts, left_out=left_out, repaired=completed.damaged, seconds=seconds
    )


def read_matching_snapshot(settings: BuildSettings) -> SnapshotFile | None:
    """Read the latest snapshot of the store. Raises: BadInput if its source or its settings are different."""
    latest = latest_snapshot(settings.store)
    if latest is not None and latest.settings["source"] != absolute(settings.source):
        raise BadInput(
            f"{settings.store}: holds spectrograms of {latest.settings['source']} (wanted "
            f"{absolute(settings.source)}); name another store (--store)"
        )
    wanted = settings.spectrogram.recipe()
    if latest is not None and latest.recipe != wanted:
        raise BadInput(
            f"{settings.store}: was built with {_differences(latest.recipe, wanted)}; "
            "use the settings it has, or name another store (--store)"
        )
    return latest


@stage
def list_tracks(settings: BuildSettings) -> tuple[pa.Table, SourceCounts]:
    """Read the catalogue of the source, with the splits that the source defines; and count all its files."""
    counts = SourceCounts()
    catalogue = read_catalogue(
        settings.source, settings.catalogue, rules=settings.selection.rules(), counts=counts
    )
    return catalogue, counts


def check_missing_files(catalogue: pa.Table, settings: BuildSettings) -> None:
    """Check the number of tracks without a file before anything is decoded.

    Raises: BadInput if too many tracks have no file.
    """
    missing = catalogue["size_bytes"].null_count
    source_has_sizes = missing < len(catalogue)
    if source_has_sizes and missing > settings.max_reject_share * len(catalogue):
        raise BadInput(
            f"{settings.source}: {missing:,} of {len(catalogue):,} tracks have no file; at most "
            f"{settings.max_reject_share:.0%} may be rejected: add the files, or raise --max-reject-share"
        )


@stage
def find_completed_tracks(catalogue: pa.Table, settings: BuildSettings) -> CompletedTracks:
    """Find the tracks that need not be built again.

    A file whose signature changed is built again, and so is one that was missing or forbidden:
    it may be there now.
    """
    if latest_snapshot(settings.store) is None:
        return CompletedTracks(np.zeros(len(catalogue), np.bool_), 0)
    columns = ["status", "reason", "signature", "sha256"]
    index = open_snapshot(settings.store).read_index(catalogue["track_id"], columns)
    is_reject = _is_true(pc.equal(index["status"], "rejected"))
    is_completed = (
        pc.is_valid(index["status"]).to_numpy()
        & _same_signature(index["signature"], catalogue["signature"])
        & ~_is_true(pc.is_in(index["reason"], pa.array(RETRYABLE_REASONS)))
    )
    if settings.retry_rejects:
        is_completed &= ~is_reject
    if settings.change_detection == "sha256":
        is_built = is_completed & ~is_reject
        is_completed &= is_reject | match_hashes(catalogue, index["sha256"], is_built, settings)
    return CompletedTracks(is_completed, int((is_completed & is_reject).sum()))


@stage
def find_damaged_tracks(catalogue: pa.Table, settings: BuildSettings) -> NDArray[np.bool_]:
    """Read every byte of the latest snapshot; return which tracks have damaged or lost spectrograms.

    Shapes: (T,), one per track of the catalogue.
    Raises: BadInput if a table is damaged: then it is not known what is stored.
    """
    latest = latest_snapshot(settings.store)
    if latest is None:
        return np.zeros(len(catalogue), np.bool_)
    with showing_progress("Verifying", sum(map(part_rows, latest.files)), "files") as advance:
        result = verify(Snapshot(settings.store, latest), advance=lambda files: advance(files, ""))
    if result.tables:
        raise BadInput(
            f"{settings.store}: {', '.join(result.tables)}: damaged or missing, so what is stored is not known; "
            "restore from a backup, or build into a new store (--store)"
        )
    return np.asarray(pc.is_in(catalogue["track_id"], value_set=pa.array(result.tracks, pa.string())))


def _is_true(flags: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(flags, fill_value=False))


def _same_signature(before: pa.ChunkedArray, now: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Compare signatures. A source without signatures never changes them: two nulls are equal."""
    both_null = pc.and_(pc.is_null(before), pc.is_null(now))
    return np.asarray(pc.or_(both_null, pc.fill_null(pc.equal(before, now), fill_value=False)))


def match_hashes(
    catalogue: pa.Table, sha256: pa.ChunkedArray, selected: NDArray[np.bool_], settings: BuildSettings
) -> NDArray[np.bool_]:
    """Read the selected files again; return which have the same SHA-256 as before.

    Shapes: all (T,), one per track; False for those not selected.
    """
    rows = np.flatnonzero(selected)
    row_of = dict(zip(catalogue["track_id"].take(rows).to_pylist(), rows.tolist(), strict=True))
    is_same = np.zeros(len(catalogue), np.bool_)
    with (
        open_cluster(settings.cluster) as cluster,
        showing_progress("Hashing", len(rows), "files") as advance,
    ):
        for tracks, hashes in fan_out(cluster, hash_files, _plan(catalogue.take(rows), settings)):
            for track, file_hash in zip(tracks, hashes, strict=True):
                row = row_of[track.track_id]
                is_same[row] = file_hash is not None and file_hash == sha256[row].as_py()
            advance(len(tracks), "")
    return is_same


@stage
def build_shards(
    catalogue: pa.Table, completed: CompletedTracks, previous_splits: pa.Table | None, settings: BuildSettings
) -> BuildStatistics:
    """Build the remaining tracks in batches, and publish a snapshot every few batches.

    Raises: BadInput if too many tracks are rejected; those of earlier commits stay published.

    Whatever else ends it (Ctrl-C, a full disk), the batches finished by then are published.
    """
    statistics = BuildStatistics()
    remaining = catalogue.filter(pa.array(~completed.is_completed)) if completed.count else catalogue
    if not len(remaining):
        return statistics
    # Duplicates among the new tracks are found when all are built; until then, the known ones hold.
    grouped = group_known_duplicates(catalogue, settings) if completed.count else catalogue
    stored_catalogue = put_catalogue(
        settings.store, split_tracks(grouped, settings.catalogue.split, previous_splits)
    )
    unpublished: list[BuiltBatch] = []
    with (
        open_cluster(settings.cluster) as cluster,
        showing_progress("Building", len(remaining), "tracks") as advance,
        closing(build_batches(cluster, remaining, settings)) as results,
    ):
        try:
            for tracks, built in results:
                statistics.add(tracks, built)
                advance(len(tracks), f"{statistics.hours:,.1f} h of audio, {statistics.rejected:,} rejected")
                unpublished.append(built)
                problem = find_excess_rejects(statistics, completed, len(remaining), settings)
                if problem is not None:
                    unpublished.clear()  # a broken disk or a wrong folder rejects tracks that are sound
                    raise BadInput(problem)
                if len(unpublished) == settings.batches_per_commit:
                    publish_batches(unpublished, stored_catalogue, settings)
        finally:
            publish_batches(unpublished, stored_catalogue, settings)
    return statistics


def build_batches(
    cluster: Cluster, tracks: pa.Table, settings: BuildSettings
) -> Generator[tuple[list[Track], BuiltBatch], None, None]:
    """Build tracks on the cluster, a batch per task; yield each batch with its shard and index."""
    return fan_out(
        cluster,
        build_shard,
        _plan(tracks, settings),
        on_poison=reject_crashing_track,
        settings=settings.spectrogram,
        limits=settings.limits,
        root=absolute(settings.store),
    )


def _plan(tracks: pa.Table, settings: BuildSettings) -> Iterator[list[Track]]:
    return plan_batches(
        tracks,
        tracks_per_batch=settings.tracks_per_batch,
        audio_s_per_batch=60 * settings.minutes_per_batch,
    )


def find_excess_rejects(
    statistics: BuildStatistics, completed: CompletedTracks, remaining: int, settings: BuildSettings
) -> str | None:
    """Describe the share of rejected tracks if it is too great, once enough tracks were tried; else None."""
    rejected, tried = completed.rejected + statistics.rejected, completed.count + statistics.tried
    is_last = statistics.tried == remaining
    share = rejected / tried
    if share <= settings.max_reject_share or not (is_last or tried >= MIN_TRACKS_FOR_REJECT_SHARE):
        return None
    return (
        f"{settings.source}: {rejected:,} of {tried:,} tracks ({share:.0%}) cannot be decoded; at most "
        f"{settings.max_reject_share:.0%} may be: check the files, or raise --max-reject-share"
    )


def publish_batches(unpublished: list[BuiltBatch], catalogue: str, settings: BuildSettings) -> None:
    """Publish the finished batches, and empty the list."""
    if unpublished:
        shards = [built.shard for built in unpublished if built.shard is not None]
        publish_on_latest(shards, pa.concat_tables(built.index for built in unpublished), catalogue, settings)
        unpublished.clear()


def publish_on_latest(
    shards: Sequence[Shard], index: pa.Table, catalogue: str, settings: BuildSettings
) -> None:
    """Publish on top of the latest snapshot; again on top of a later one if another run published first."""
    for attempts_left in reversed(range(MAX_PUBLISH_ATTEMPTS)):
        try:
            publish(
                settings.store,
                parent=read_matching_snapshot(settings),
                shards=shards,
                index=index,
                catalogue=catalogue,
                recipe=settings.spectrogram.recipe(),
                settings={**settings.model_dump(mode="json"), "source": absolute(settings.source)},
                kind="repair" if settings.repair else "build",
            )
            return
        except CommitConflict:
            if not attempts_left:
                raise


@stage
def publish_splits(catalogue: pa.Table, previous_splits: pa.Table | None, settings: BuildSettings) -> int:
    """Find duplicate recordings, assign the splits and publish them; return the number of tracks left out.

    Only now are the recordings known. Changed labels are published too, and tracks that are gone
    from the source leave the catalogue.
    """
    grouped = group_known_duplicates(catalogue, settings)
    split = split_tracks(grouped, settings.catalogue.split, previous_splits)
    stored_catalogue = put_catalogue(settings.store, split)
    if stored_catalogue != open_snapshot(settings.store).file.catalogue:
        publish_on_latest([], INDEX_SCHEMA.empty_table(), stored_catalogue, settings)
    match resolve_split_mode(grouped, settings.catalogue.split):
        case "official":
            return len(find_cross_split_duplicates(grouped))
        case "artist":
            return int(split["split"].null_count)
        case "none":
            return 0


def group_known_duplicates(catalogue: pa.Table, settings: BuildSettings) -> pa.Table:
    """Add to the catalogue which tracks contain the same recording, as far as they are in the store."""
    index = open_snapshot(settings.store).read_index(
        catalogue["track_id"], ["sha256", "fingerprint", "decoded_s"]
    )
    return add_duplicate_groups(catalogue, index)


@stage
def summarise_build(
    statistics: BuildStatistics,
    settings: BuildSettings,
    counts: SourceCounts,
    *,
    left_out: int,
    repaired: int,
    seconds: float,
) -> BuildSummary:
    """Summarise the content of the store, in the Prefect UI as well."""
    snapshot = open_snapshot(settings.store)
    return report_build(
        snapshot,
        statistics,
        counts,
        store=settings.store,
        exclude=settings.selection.exclude,
        left_out=left_out,
        repaired=repaired,
        seconds=seconds,
    )


def _differences(stored: Recipe, wanted: Recipe) -> str:
    """Name the settings in which two recipes differ: "hop 512 (wanted 256)"."""
    ours, theirs = (
        {**recipe.mel_settings, **recipe.excerpt, "encoding": recipe.encoding} for recipe in (stored, wanted)
    )
    return ", ".join(
        f"{name} {ours[name]} (wanted {theirs[name]})" for name in ours if ours[name] != theirs[name]
    )
