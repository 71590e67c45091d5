"""Spectrograms held in memory, in the place of a store's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.dataset.frame_reader import Locations


@dataclass(frozen=True)
class HeldFrames:
    """A source of crops over plain arrays: each track is a shard."""

    mels: Mapping[str, NDArray[np.floating]]

    @property
    def bands(self) -> int:
        return next(iter(self.mels.values())).shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return next(iter(self.mels.values())).dtype

    def read_crops(
        self,
        locations: Locations,
        track_B: NDArray[np.integer],
        start_B: NDArray[np.integer],
        out_BFM: NDArray[Any],
    ) -> None:
        for out_FM, track, start in zip(out_BFM, track_B, start_B, strict=True):
            mel_FM = self.mels[locations.shards[locations.shard_T[track]]][start : start + len(out_FM)]
            out_FM[:] = np.resize(mel_FM, out_FM.shape)


def locations_of(frames: Sequence[int], shards: Sequence[str] = ()) -> Locations:
    """Return the locations of tracks that are a shard each; a track without frames has no spectrogram."""
    frames_T = np.array(frames, np.int64)
    shard_T = np.where(frames_T > 0, np.arange(len(frames)), -1).astype(np.int32)
    return Locations(np.array(shards, object), shard_T, np.zeros(len(frames), np.int64), frames_T)
