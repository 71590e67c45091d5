"""Verifying a snapshot: every stored byte is read and compared with the checksums written when it was stored."""

import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from store.dataset.checksums import StoredFile, damaged_chunks
from store.dataset.parts import is_intact
from store.dataset.reader import Snapshot
from store.dataset.shard_objects import METADATA_FILE
from store.fs.files import join, read_bytes
from store.fs.parquet import read_table

READ_AHEAD = 4  # files in memory for each thread
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written, and the tracks of the snapshot that need the damaged bytes."""

    path: str  # in the store
    problem: str
    tracks: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """The result of reading all of a snapshot."""

    snapshot: int
    files: int
    size_bytes: int
    damages: tuple[Damage, ...]

    @property
    def tracks(self) -> list[str]:
        """The damaged tracks, sorted."""
        return sorted({it for damage in self.damages for it in damage.tracks})

    @property
    def tables(self) -> list[str]:
        """The damaged tables: what they list is not known."""
        return [damage.path for damage in self.damages if not damage.path.startswith("shards/")]


def verify(snapshot: Snapshot, *, threads: int = 8, advance: Progress = lambda files: None) -> Verification:
    """Read every file that a snapshot names, and compare it with its checksums.

    Raises: OSError if the disk or the server fails; a file that is missing or damaged is a result.

    A damaged shard whose tracks were built again since is a result without tracks.
    """
    root, file = snapshot.root, snapshot.file
    tables = [file.catalogue, *file.index, *file.files, *file.sweeps]
    damages = [it for it in (_check_table(root, name) for name in tables) if it is not None]
    size_bytes = files = 0
    if not damages:
        locations = Locations(snapshot)
        stored = [read_table(join(root, name)) for name in file.files]
        damages += locations.without_checksums(stored)
        with ThreadPoolExecutor(threads) as pool:
            rows = _rows(stored)
            while some := list(islice(rows, READ_AHEAD * threads)):
                found = pool.map(lambda row: _check_file(root, row[0], row[1], locations), some)
                damages += [it for it in found if it is not None]
                files, size_bytes = files + len(some), size_bytes + sum(it.size_bytes for _, it in some)
                advance(len(some))
    return Verification(file.number, files, size_bytes, tuple(damages))


class Locations:
    """Which tracks of a snapshot have frames in which shard. Shapes: T tracks, sorted by shard."""

    def __init__(self, snapshot: Snapshot) -> None:
        track_ids = snapshot.catalogue_columns(("track_id",))["track_id"]
        index = snapshot.read_index(track_ids, ["shard", "start_frame", "frames"])
        table = pa.table({"track_id": track_ids, **dict(zip(index.column_names, index.columns, strict=True))})
        table = table.filter(pc.is_valid(table["shard"])).sort_by("shard")
        self._track_ids_T: pa.ChunkedArray = table["track_id"]
        self._starts_T: NDArray[np.int64] = table["start_frame"].to_numpy()
        self._stops_T: NDArray[np.int64] = self._starts_T + table["frames"].to_numpy()
        counts = pc.value_counts(table["shard"].combine_chunks())  # in the order of first occurrence
        stops = np.cumsum(counts.field("counts").to_numpy(), dtype=np.int64).tolist()
        shards = counts.field("values").to_pylist()
        self._rows = {shard: slice(*it) for shard, *it in zip(shards, [0, *stops], stops, strict=False)}

    def overlapping(self, shard: str, start: int, stop: int) -> tuple[str, ...]:
        """Return the tracks with frames of [start, stop) of a shard."""
        rows = self._rows.get(shard, slice(0, 0))
        is_hit = (self._starts_T[rows] < stop) & (start < self._stops_T[rows])
        return tuple(self._track_ids_T.take(np.flatnonzero(is_hit) + rows.start).to_pylist())

    def whole_shard(self, shard: str) -> tuple[str, ...]:
        """Return all tracks of a shard."""
        return self.overlapping(shard, 0, np.iinfo(np.int64).max)

    def without_checksums(self, stored: Sequence[pa.Table]) -> Iterator[Damage]:
        """Yield the shards that the index names and the list of files does not."""
        listed = {it for table in stored for it in table["shard"].unique().to_pylist()}
        for shard in sorted(set(self._rows) - listed):
            yield Damage(f"shards/{shard}", "no checksums were recorded", self.whole_shard(shard))


def _rows(stored: Sequence[pa.Table]) -> Iterator[tuple[str, StoredFile]]:
    for table in stored:
        for batch in table.to_batches(max_chunksize=1_000):
            for row in batch.to_pylist():
                shard = row.pop("shard")
                yield shard, StoredFile(**row)


def _check_table(root: str, name: str) -> Damage | None:
    try:
        return None if is_intact(root, name) else Damage(name, "differs from what was written", ())
    except FileNotFoundError:
        return Damage(name, "missing", ())


def _check_file(root: str, shard: str, file: StoredFile, locations: Locations) -> Damage | None:
    path = f"shards/{shard}/{file.path}"
    try:
        content = read_bytes(join(root, path))
    except FileNotFoundError:
        # Readers refuse a shard with a missing object: its other tracks are built again, too.
        return Damage(path, "missing", locations.whole_shard(shard))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return _whole_file(path, f"cannot be read ({error.strerror})", shard, file, locations)
    if len(content) == file.size_bytes and google_crc32c.value(content) == file.crc32c:
        return None
    return _find_damage(path, content, shard, file, locations)


def _find_damage(path: str, content: bytes, shard: str, file: StoredFile, locations: Locations) -> Damage:
    """Find which tracks the damaged bytes of a file belong to."""
    problem = "differs from what was written"
    if len(content) != file.size_bytes:
        problem = f"{len(content):,} bytes, {file.size_bytes:,} were written"
    if file.path == METADATA_FILE or len(content) != file.size_bytes:
        return _whole_file(path, problem, shard, file, locations)
    try:
        chunks = damaged_chunks(content, file)
    except ValueError as why:
        return _whole_file(path, str(why), shard, file, locations)
    assert file.chunk_frames is not None
    starts = [file.first_frame + chunk * file.chunk_frames for chunk in chunks]
    tracks = [locations.overlapping(shard, start, start + file.chunk_frames) for start in starts]
    of_chunks = f"{len(chunks)} of {len(file.chunk_crc32c or ())} chunks differ"
    problem = of_chunks if chunks else "differs outside its chunks"
    return Damage(path, problem, tuple(dict.fromkeys(it for some in tracks for it in some)))


def _whole_file(path: str, problem: str, shard: str, file: StoredFile, locations: Locations) -> Damage:
    if file.path == METADATA_FILE:
        return Damage(path, problem, locations.whole_shard(shard))
    assert file.chunk_crc32c is not None
    assert file.chunk_frames is not None
    stop = file.first_frame + len(file.chunk_crc32c) * file.chunk_frames
    return Damage(path, problem, locations.overlapping(shard, file.first_frame, stop))
