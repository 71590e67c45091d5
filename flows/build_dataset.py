"""Turn an audio catalogue into published spectrograms. Rerun it to resume it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.checks import check_build
from flows.cluster.client import open_cluster
from flows.cluster.fan_out import fan_out
from flows.reporting.build_report import BuildStatistics, BuildSummary, report_build
from flows.reporting.progress import showing_progress
from flows.reporting.stage import stage
from flows.settings import BuildSettings
from preprocessing.build.batches import plan_batches
from preprocessing.build.shard_task import BuiltBatch, Track, build_shard, hash_files, reject_crashing_track
from preprocessing.catalogue.duplicates import add_duplicate_groups
from preprocessing.catalogue.previous_splits import read_previous_splits
from preprocessing.catalogue.sources import read_catalogue
from preprocessing.catalogue.splits import find_cross_split_duplicates, resolve_split_mode, split_tracks
from preprocessing.errors import RETRYABLE_REASONS
from store.dataset.recipe import Recipe
from store.dataset.snapshots import INDEX_SCHEMA, SnapshotFile, latest_snapshot, publish, put_catalogue
from store.errors import BadInput, CommitConflict
from store.fs.files import absolute
from store.reader import open_snapshot

MIN_TRACKS_FOR_REJECT_SHARE = (
    300  # tracks tried before a share of rejects means anything: the longest come first
)
MAX_PUBLISH_ATTEMPTS = 5


@dataclass(frozen=True)
class CompletedTracks:
    """Which tracks of the catalogue the store has a valid answer for, and how many of these are rejects."""

    is_completed: NDArray[np.bool_]  # a row of the catalogue each
    rejected: int

    @property
    def tracks(self) -> int:
        """How many tracks need not be tried."""
        return int(self.is_completed.sum())


def build_dataset(settings: BuildSettings) -> BuildSummary:
    """Turn an audio catalogue into published spectrograms. Rerun it to resume it."""
    check_build(settings)
    begun = time.monotonic()
    read_matching_snapshot(settings)
    catalogue = list_tracks(settings)
    check_missing_files(catalogue, settings)
    standing = find_completed_tracks(catalogue, settings)
    previous = read_previous_splits(settings.store, catalogue, settings.catalogue.split)
    tally = build_shards(catalogue, standing, previous, settings)
    left_out = publish_splits(catalogue, previous, settings)
    return summarise_build(tally, settings, left_out=left_out, seconds=time.monotonic() - begun)


def read_matching_snapshot(settings: BuildSettings) -> SnapshotFile | None:
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


@stage
def list_tracks(settings: BuildSettings) -> pa.Table:
    """Read the catalogue of the source, with the splits it comes with."""
    return read_catalogue(settings.source, settings.catalogue)


def check_missing_files(catalogue: pa.Table, settings: BuildSettings) -> None:
    """Raises: BadInput if the listing alone shows that too many tracks have no file: not after a day's decoding."""
    missing = catalogue["size_bytes"].null_count
    source_tells_sizes = missing < len(catalogue)
    if source_tells_sizes and missing > settings.max_reject_share * len(catalogue):
        raise BadInput(
            f"{settings.source}: {missing:,} of {len(catalogue):,} tracks have no file; at most "
            f"{settings.max_reject_share:.0%} may be rejected: put the files there, or raise max_reject_share"
        )


@stage
def find_completed_tracks(catalogue: pa.Table, settings: BuildSettings) -> CompletedTracks:
    """Find the tracks that need not be tried again.

    A file of another signature than before is another file. One that was missing or forbidden
    may be there now.
    """
    if latest_snapshot(settings.store) is None:
        return CompletedTracks(np.zeros(len(catalogue), np.bool_), 0)
    columns = ["status", "reason", "signature", "sha256"]
    before = open_snapshot(settings.store).read_index(catalogue["track_id"], columns)
    is_reject = _filled(pc.equal(before["status"], "rejected"))
    stands = (
        pc.is_valid(before["status"]).to_numpy()
        & _same(before["signature"], catalogue["signature"])
        & ~_filled(pc.is_in(before["reason"], pa.array(RETRYABLE_REASONS)))
    )
    if settings.retry_rejects:
        stands &= ~is_reject
    if settings.change_detection == "sha256":
        stands &= is_reject | match_hashes(catalogue, before["sha256"], stands & ~is_reject, settings)
    return CompletedTracks(stands, int((stands & is_reject).sum()))


def _filled(flags: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(flags, fill_value=False))


def _same(before: pa.ChunkedArray, now: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Compare signatures; a source that tells none has the same as before."""
    both_null = pc.and_(pc.is_null(before), pc.is_null(now))
    return np.asarray(pc.or_(both_null, pc.fill_null(pc.equal(before, now), fill_value=False)))


def match_hashes(
    catalogue: pa.Table, sha256: pa.ChunkedArray, wanted: NDArray[np.bool_], settings: BuildSettings
) -> NDArray[np.bool_]:
    """Read files anew and say which hold what they held. Shapes: (T,), False for those not `wanted`."""
    rows = np.flatnonzero(wanted)
    row_of = dict(zip(catalogue["track_id"].take(rows).to_pylist(), rows.tolist(), strict=True))
    same = np.zeros(len(catalogue), np.bool_)
    with (
        open_cluster(settings.cluster) as cluster,
        showing_progress("Hashing", len(rows), "files") as advance,
    ):
        for tracks, hashes in fan_out(cluster, hash_files, _plan(catalogue.take(rows), settings)):
            for track, found in zip(tracks, hashes, strict=True):
                row = row_of[track.track_id]
                same[row] = found is not None and found == sha256[row].as_py()
            advance(len(tracks), "")
    return same


@stage
def build_shards(
    catalogue: pa.Table, standing: CompletedTracks, previous: pa.Table | None, settings: BuildSettings
) -> BuildStatistics:
    """Fan the batches out over Dask and publish what comes back.

    Raises: BadInput if too many tracks are rejected; those of earlier commits stay published.

    Whatever else ends it (Ctrl-C, a full disk), the batches finished by then are published.
    """
    tally = BuildStatistics()
    todo = catalogue.filter(pa.array(~standing.is_completed)) if standing.tracks else catalogue
    if not len(todo):
        return tally
    # What the store knows of copies holds meanwhile; those among the new tracks show when all are built.
    known = group_known_duplicates(catalogue, settings) if standing.tracks else catalogue
    stored = put_catalogue(settings.store, split_tracks(known, settings.catalogue.split, previous))
    waiting: list[BuiltBatch] = []
    with (
        open_cluster(settings.cluster) as cluster,
        showing_progress("Building", len(todo), "tracks") as advance,
    ):
        batches = fan_out(
            cluster,
            build_shard,
            _plan(todo, settings),
            on_poison=reject_crashing_track,
            settings=settings.spectrogram,
            limits=settings.limits,
            root=absolute(settings.store),
        )
        with closing(batches) as results:
            try:
                for tracks, built in results:
                    tally.add(tracks, built)
                    advance(len(tracks), f"{tally.hours:,.1f} h of audio, {tally.rejected:,} rejected")
                    waiting.append(built)
                    _refuse_too_many(
                        tally, standing, settings, final=tally.tried == len(todo), waiting=waiting
                    )
                    if len(waiting) == settings.batches_per_commit:
                        _publish_batches(waiting, stored, settings)
            finally:
                _publish_batches(waiting, stored, settings)
    return tally


def _plan(tracks: pa.Table, settings: BuildSettings) -> Iterator[list[Track]]:
    return plan_batches(
        tracks,
        tracks_per_batch=settings.tracks_per_batch,
        audio_s_per_batch=60 * settings.minutes_per_batch,
    )


def _refuse_too_many(
    tally: BuildStatistics,
    standing: CompletedTracks,
    settings: BuildSettings,
    *,
    final: bool,
    waiting: list[BuiltBatch],
) -> None:
    rejected, tried = standing.rejected + tally.rejected, standing.tracks + tally.tried
    share = rejected / tried
    if share > settings.max_reject_share and (final or tried >= MIN_TRACKS_FOR_REJECT_SHARE):
        waiting.clear()  # what a broken disk or a wrong folder made of them must not count as an answer
        raise BadInput(
            f"{settings.source}: {rejected:,} of {tried:,} tracks ({share:.0%}) cannot be decoded; at most "
            f"{settings.max_reject_share:.0%} may be: look at the files, or raise max_reject_share"
        )


def _publish_batches(waiting: list[BuiltBatch], catalogue: str, settings: BuildSettings) -> None:
    """Publish the batches that wait, and empty the list."""
    if waiting:
        shards = [built.shard.name for built in waiting if built.shard is not None]
        _publish_on_top(shards, pa.concat_tables(built.index for built in waiting), catalogue, settings)
        waiting.clear()


def _publish_on_top(shards: Iterable[str], index: pa.Table, catalogue: str, settings: BuildSettings) -> None:
    """Publish on top of whatever is the latest snapshot."""
    for left in reversed(range(MAX_PUBLISH_ATTEMPTS)):
        try:
            publish(
                settings.store,
                parent=read_matching_snapshot(settings),
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


@stage
def publish_splits(catalogue: pa.Table, previous: pa.Table | None, settings: BuildSettings) -> int:
    """Find the recordings that are there several times, split anew and publish; count the tracks left out.

    Only now is it known what each file holds. Labels that changed are published too, and
    tracks that are gone from the source leave the catalogue.
    """
    grouped = group_known_duplicates(catalogue, settings)
    split = split_tracks(grouped, settings.catalogue.split, previous)
    stored = put_catalogue(settings.store, split)
    if stored != open_snapshot(settings.store).file.catalogue:
        _publish_on_top([], INDEX_SCHEMA.empty_table(), stored, settings)
    match resolve_split_mode(grouped, settings.catalogue.split):
        case "official":
            return len(find_cross_split_duplicates(grouped))
        case "artist":
            return int(split["split"].null_count)
        case "none":
            return 0


def group_known_duplicates(catalogue: pa.Table, settings: BuildSettings) -> pa.Table:
    """Fill in which tracks hold the same recording, as far as the store has them."""
    snapshot = open_snapshot(settings.store)
    answers = snapshot.read_index(catalogue["track_id"], ["sha256", "fingerprint", "decoded_s"])
    return add_duplicate_groups(catalogue, answers)


@stage
def summarise_build(
    tally: BuildStatistics, settings: BuildSettings, *, left_out: int, seconds: float
) -> BuildSummary:
    """Say what the store holds now, in the Prefect UI as well."""
    snapshot = open_snapshot(settings.store)
    return report_build(snapshot, tally, store=settings.store, left_out=left_out, seconds=seconds)


def _differences(have: Recipe, want: Recipe) -> str:
    """Name the settings in which two recipes differ: "hop 512 (wanted 256)"."""
    ours, theirs = (
        {**recipe.mel_settings, **recipe.excerpt, "encoding": recipe.encoding} for recipe in (have, want)
    )
    return ", ".join(
        f"{name} {ours[name]} (wanted {theirs[name]})" for name in ours if ours[name] != theirs[name]
    )
