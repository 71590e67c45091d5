"""Tracks to one shard: the body of a task (knows nothing of what runs it)."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from preprocessing.decode import decode_track
from preprocessing.errors import BadAudio
from preprocessing.mel import MelSettings, log_mel
from store.dataset import INDEX_SCHEMA, Encoding, Recipe, Shard, write_shard


class ExcerptSettings(BaseModel, frozen=True, extra="forbid"):
    """Which part of each track is listened to."""

    start_s: float = Field(0.0, ge=0.0, description="Where the excerpt starts, in seconds")
    duration_s: float | None = Field(
        None, gt=0.0, description="How long it is, in seconds; empty for the rest of the track"
    )


class SpectrogramSettings(BaseModel, frozen=True, extra="forbid"):
    """How a track becomes a stored spectrogram."""

    mel: MelSettings = MelSettings()
    excerpt: ExcerptSettings = ExcerptSettings()
    encoding: Encoding = Field(
        "float16",
        description="How values are stored: float32 exact, float16 within 0.03 dB, uint8 within 0.28 dB",
    )

    def recipe(self) -> Recipe:
        """Say what a dataset made with these settings is stamped with."""
        return Recipe(self.mel.model_dump(), self.mel.fingerprint, self.encoding, self.excerpt.model_dump())


@dataclass(frozen=True)
class Track:
    """What a task must know of one audio file."""

    track_id: str
    url: str


@dataclass(frozen=True)
class BuiltBatch:
    """What became of one batch: a shard (None if no track gave one), and a row for each track."""

    shard: Shard | None
    index: pa.Table


def build_shard(tracks: Sequence[Track], *, settings: SpectrogramSettings, root: str) -> BuiltBatch:
    """Decode, transform and store one batch of tracks. Safe to run twice.

    Raises: OSError if the source or the store fails; a bad file is an answer, not an error.

    Only the small BuiltBatch comes back: spectrograms go from worker to store directly.
    """
    rows: list[dict[str, object]] = []
    mels = _mels(tracks, settings, rows)
    first = next(mels, None)
    if first is None:
        return BuiltBatch(None, pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))
    shard = write_shard(
        root,
        chain([first], mels),
        bands=settings.mel.bands,
        encoding=settings.encoding,
        attributes={"mel": settings.mel.model_dump(), "mel_fingerprint": settings.mel.fingerprint},
    )
    for row in rows:
        if row["status"] != "rejected":
            track_id = str(row["track_id"])
            row |= {"shard": shard.name, "start_frame": shard.starts[track_id]}
    return BuiltBatch(shard, pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))


def _mels(
    tracks: Sequence[Track], settings: SpectrogramSettings, rows: list[dict[str, object]]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the spectrogram of each track that has one; note in `rows` what became of every track."""
    for track in tracks:
        begun = time.perf_counter()
        try:
            decoded = decode_track(
                track.url,
                sample_rate_hz=settings.mel.sample_rate_hz,
                start_s=settings.excerpt.start_s,
                duration_s=settings.excerpt.duration_s,
            )
            mel_FM = log_mel(decoded.wave_S, settings.mel)
        except BadAudio as why:
            rows.append(
                {"track_id": track.track_id, "status": "rejected", "reason": why.reason, "detail": why.detail}
            )
            continue
        rows.append(
            {
                "track_id": track.track_id,
                "status": "ok-truncated" if decoded.is_cut_short else "ok",
                "frames": len(mel_FM),
                "decoded_s": decoded.decoded_s,
                "stated_s": decoded.stated_s,
                "build_s": time.perf_counter() - begun,
            }
        )
        yield track.track_id, mel_FM
