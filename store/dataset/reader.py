"""The reader of a dataset: the tracks and spectrograms of one snapshot, as it was published.

Axes: F frames, M mel bands.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from store.dataset.frame_reader import LOCATION_COLUMNS, FrameReader, Locations
from store.dataset.genre_tree import genre_parents
from store.dataset.recipe import Encoding
from store.dataset.shards import decode_db
from store.dataset.snapshots import (
    INDEX_SCHEMA,
    SnapshotFile,
    latest_snapshot,
    read_snapshot_file,
    root_of_snapshot,
    snapshot_url,
)
from store.errors import BadInput
from store.fs.block_cache import BlockCache
from store.fs.column_hash import hash_columns
from store.fs.files import join
from store.fs.parquet import read_table


def open_snapshot(url: str) -> "Snapshot":
    """Open a dataset at its latest snapshot, or at the one whose .json file `url` names.

    Raises: BadInput if nothing was published there.
    """
    if url.endswith(".json"):
        try:
            return Snapshot(root_of_snapshot(url), read_snapshot_file(url))
        except FileNotFoundError:
            raise BadInput(f"{url}: no such snapshot; name one that is in the store's snapshots/") from None
    file = latest_snapshot(url)
    if file is None:
        raise BadInput(f"{url}: holds no published spectrograms; run `spectrogram-one build` first")
    return Snapshot(url.rstrip("/"), file)


class Snapshot:
    """The content of one snapshot. Files are opened when first read, so it pickles small."""

    def __init__(self, root: str, file: SnapshotFile) -> None:
        self.root = root
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Snapshot, (self.root, self.file)

    @property
    def url(self) -> str:
        """The URL of its file: `open_snapshot` opens the same snapshot from it."""
        return snapshot_url(self.root, self.number)

    @property
    def number(self) -> int:
        """The number of the snapshot, counted from 0."""
        return self.file.number

    @property
    def mel_settings(self) -> dict[str, Any]:
        """The stored mel settings."""
        return self.file.recipe.mel_settings

    @property
    def mel_fingerprint(self) -> str:
        """The hash of the mel settings: see `MelSettings.settings_hash`."""
        return self.file.recipe.mel_fingerprint

    @property
    def encoding(self) -> Encoding:
        """The encoding of dB values."""
        return self.file.recipe.encoding

    @cached_property
    def catalogue(self) -> pa.Table:
        """The requested tracks, with their labels."""
        return read_table(join(self.root, self.file.catalogue))

    @property
    def genre_parents(self) -> dict[str, str]:
        """The parent of each genre, by title; {} where the source has no tree."""
        return genre_parents(self.catalogue_columns(["track_id"]).schema)

    def catalogue_columns(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns of the catalogue."""
        return read_table(join(self.root, self.file.catalogue), columns).select(list(columns))

    @cached_property
    def tracks(self) -> pa.Table:
        """The catalogue, in its order, joined with the index; status is null for a track that was not processed."""
        names = [name for name in INDEX_SCHEMA.names if name not in self.catalogue.column_names]
        index = self.read_index(self.catalogue["track_id"], names)
        tracks = self.catalogue
        for name in names:
            tracks = tracks.append_column(INDEX_SCHEMA.field(name), index[name])
        return tracks

    def track_columns(self, catalogue: Sequence[str], index: Sequence[str]) -> pa.Table:
        """Return some columns of the catalogue, joined with some of the index: less than `tracks` of a million.

        The names of shards are a dictionary, since there are few.
        """
        tracks = self.catalogue_columns(["track_id", *catalogue])
        rows = self.read_index(tracks["track_id"], index, encoded=("shard",))
        for name in index:
            tracks = tracks.append_column(name, rows[name])
        return tracks

    def read_index(
        self, track_ids: pa.ChunkedArray, columns: Sequence[str], *, encoded: Sequence[str] = ()
    ) -> pa.Table:
        """Return columns of the index for some tracks: null where a track was never processed.

        Shapes: one row for each of `track_ids`, in their order.

        Of a track that several snapshots processed, the last result. Of a million tracks, read only
        the columns that are needed, those of few texts as dictionaries (`encoded`).
        """
        names = ["track_id", *columns]
        parts = [read_table(join(self.root, it), names, encoded=encoded) for it in self.file.index]
        empty = [] if parts else [INDEX_SCHEMA.empty_table()]
        rows = pa.concat_tables([part.select(names) for part in (*empty, *parts)]).unify_dictionaries()
        backwards = pa.array(np.arange(len(rows))[::-1])  # of duplicates, index_in finds the first
        newest_first = rows["track_id"].combine_chunks().take(backwards)
        found = pc.subtract(len(rows) - 1, pc.index_in(track_ids, value_set=newest_first))
        return rows.select(list(columns)).take(found)

    def locate(self, track_ids: pa.ChunkedArray) -> Locations:
        """Return where the spectrograms of some tracks lie, by column: Python objects for a million take seconds.

        Shapes: one location for each of `track_ids`, in their order.
        """
        return Locations.of(self.read_index(track_ids, LOCATION_COLUMNS, encoded=("shard",)))

    @cached_property
    def reader(self) -> FrameReader:
        """The reader of its shards."""
        return self.reader_with(None)

    def reader_with(self, cache: BlockCache | None) -> FrameReader:
        """Return a reader of its shards that keeps what it reads in a cache."""
        return FrameReader(self.root, np.dtype(self.encoding), int(self.mel_settings["bands"]), cache)

    @cached_property
    def track_ids(self) -> list[str]:
        """The tracks with a spectrogram, in the catalogue's order."""
        has_one_T = self._locations.shard_T >= 0
        ids: list[str] = self.catalogue["track_id"].filter(pa.array(has_one_T)).to_pylist()
        return ids

    @cached_property
    def _locations(self) -> Locations:
        return self.locate(self.catalogue["track_id"])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        rows = zip(self.catalogue["track_id"].to_pylist(), self._locations.shard_T.tolist(), strict=True)
        return {track_id: row for row, (track_id, shard) in enumerate(rows) if shard >= 0}

    def content_hash(self, tracks: pa.Table) -> str:
        """Return a hash of what is stored of some tracks: it changes if they are built again.

        `tracks` has the column track_id and LOCATION_COLUMNS.
        """
        digest = hashlib.sha256(repr(self.file.recipe).encode())
        hash_columns(tracks.select(["track_id", *LOCATION_COLUMNS]), digest)
        return digest.hexdigest()[:12]

    def frames(self, track_id: str) -> int:
        """Return the number of frames of a track. Raises: KeyError if it has no spectrogram here."""
        return int(self._locations.frames_T[self._row_of[track_id]])

    def mel(self, track_id: str) -> NDArray[np.float32]:
        """Read a track's whole spectrogram. Shapes: (F, M), in dB. Raises: KeyError."""
        return self.mel_slice(track_id, 0, self.frames(track_id))

    def mel_slice(self, track_id: str, start_frame: int, frames: int) -> NDArray[np.float32]:
        """Read some frames of a track; fewer than requested at the end of the track. Shapes: (F, M)."""
        row = self._row_of[track_id]
        return decode_db(self.reader.read_track(self._locations, row, start_frame, frames))
