"""The body of a build's task: one batch of tracks to one shard. It is independent of what runs it."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.build.settings import SpectrogramSettings
from preprocessing.decode.local_copies import iter_local_copies
from preprocessing.decode.sandbox import thread_sandbox
from preprocessing.decode.settings import LimitSettings
from preprocessing.decode.spool import SpooledMel
from preprocessing.errors import BadAudio
from store.dataset.shards import Shard, write_shard
from store.dataset.snapshots import INDEX_SCHEMA
from store.fs.files import hash_file

IndexRow = dict[str, Any]  # of INDEX_SCHEMA


@dataclass(frozen=True)
class Track:
    """One audio file to build."""

    track_id: str
    url: str
    size_bytes: int | None = None
    signature: str | None = None  # of the file when the catalogue was read
    sha1: str | None = None  # that the source publishes


@dataclass(frozen=True)
class BuiltBatch:
    """The result of one batch: a shard (None if all tracks were rejected) and a row of the index for each track."""

    shard: Shard | None
    index: pa.Table
    worker: str  # host and process
    seconds: float


def build_shard(
    tracks: Sequence[Track], *, settings: SpectrogramSettings, limits: LimitSettings, root: str
) -> BuiltBatch:
    """Decode, transform and store one batch of tracks. Safe to run twice.

    Raises: OSError if the source or the store fails; a bad file is a rejected row, not an error.

    Only the small BuiltBatch is returned: the worker writes spectrograms to the store itself.
    """
    started_s = time.perf_counter()
    rows: list[IndexRow] = []
    mels = _mels(tracks, settings, limits, rows)
    first = next(mels, None)
    shard = None
    if first is not None:
        shard = write_shard(
            root,
            chain([first], mels),
            bands=settings.mel.bands,
            encoding=settings.encoding,
            attributes={"mel": settings.mel.model_dump(), "mel_fingerprint": settings.mel.settings_hash},
        )
        _add_positions(rows, shard)
    index = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    worker = f"{socket.gethostname()}/{os.getpid()}"
    return BuiltBatch(shard, index, worker, time.perf_counter() - started_s)


def _add_positions(rows: list[IndexRow], shard: Shard) -> None:
    """Add to the rows of tracks that were not rejected where their spectrograms are in the shard."""
    for row in rows:
        if row["status"] != "rejected":
            track_id = row["track_id"]
            row |= {
                "shard": shard.name,
                "start_frame": shard.starts[track_id],
                "frames": shard.frames[track_id],
            }


def reject_crashing_track(track: Track) -> BuiltBatch:
    """Return the result for a track that crashes every worker that decodes it."""
    error = BadAudio("decoder-killed", "the worker died each time it had this file and nothing else")
    return BuiltBatch(None, pa.Table.from_pylist([_reject(track, error, 0.0)], schema=INDEX_SCHEMA), "", 0.0)


def hash_files(tracks: Sequence[Track]) -> list[bytes | None]:
    """Return the SHA-256 of each file, None where it cannot be read. Raises: OSError if a disk fails."""
    with closing(iter_local_copies(track.url for track in tracks)) as paths:
        return [_hash(path) for path in paths]


def _hash(path: Path | BadAudio) -> bytes | None:
    try:
        return None if isinstance(path, BadAudio) else hash_file(path, "sha256")
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        return None


def _reject(track: Track, error: BadAudio, build_s: float) -> IndexRow:
    return {
        "track_id": track.track_id,
        "status": "rejected",
        "reason": error.reason,
        "detail": error.detail,
        "build_s": build_s,
        "signature": track.signature,
    }


def _accept(track: Track, spooled: SpooledMel, build_s: float) -> IndexRow:
    return {
        "track_id": track.track_id,
        "status": "ok-truncated" if spooled.is_truncated else "ok",
        "decoded_s": spooled.decoded_s,
        "stated_s": spooled.stated_s,
        "silence_s": spooled.silence_s,
        "build_s": build_s,
        "signature": track.signature,
        "sha256": None if spooled.sha256 is None else bytes.fromhex(spooled.sha256),
        "fingerprint": bytes.fromhex(spooled.fingerprint),
    }


def _mels(
    tracks: Sequence[Track], settings: SpectrogramSettings, limits: LimitSettings, rows: list[IndexRow]
) -> Iterator[tuple[str, Iterator[NDArray[np.float32]]]]:
    """Yield the spectrogram of each track that can be decoded; append to `rows` a row for every track."""
    sandbox = thread_sandbox(limits)
    with closing(iter_local_copies(track.url for track in tracks)) as paths:
        for track, path in zip(tracks, paths, strict=True):
            started_s = time.perf_counter()
            try:
                if isinstance(path, BadAudio):
                    raise path
                spooled, blocks = sandbox.decode_mel(path, settings.mel, settings.excerpt, track.sha1)
            except BadAudio as error:
                rows.append(_reject(track, error, time.perf_counter() - started_s))
                continue
            rows.append(_accept(track, spooled, time.perf_counter() - started_s))
            yield track.track_id, blocks
