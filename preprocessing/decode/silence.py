"""Long digital silence, which is left out of stored spectrograms: no crop of training lies in it.

Pauses before hidden tracks, and files padded with zeros, are silence with the label of a genre.

Axes: F frames, M mel bands.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import FLOOR_DB

SILENT_DB = FLOOR_DB + 1  # in all bands: decoded zeros, not a quiet passage
KEPT_S = 0.5  # of each run, at its start and at its end: music may fade into it


class SilenceFilter:
    """Shortens the runs of silent frames in one track while its blocks pass through."""

    def __init__(self, mel: MelSettings) -> None:
        self._kept = max(1, round(KEPT_S * mel.sample_rate_hz / mel.hop))
        self._run = 0  # silent frames up to now
        self._rest_FM: NDArray[np.float32] = np.empty(
            (0, mel.bands), np.float32
        )  # the last ones of them, held back
        self.dropped_frames = 0

    def filter(self, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the frames that are kept, in order. Shapes: (F_i, M)."""
        for mel_FM in blocks:
            silent_F = mel_FM.max(axis=1) <= SILENT_DB
            if self._run or silent_F.any():
                yield from self._split(mel_FM, silent_F)
            else:
                yield mel_FM
        if len(self._rest_FM):
            yield self._rest_FM

    def _split(
        self, mel_FM: NDArray[np.float32], silent_F: NDArray[np.bool_]
    ) -> Iterator[NDArray[np.float32]]:
        edges = [0, *(np.flatnonzero(np.diff(silent_F)) + 1), len(mel_FM)]
        for start, stop in itertools.pairwise(edges):
            part_FM = mel_FM[start:stop]
            if silent_F[start]:
                yield from self._add_silent(part_FM)
            else:
                if len(self._rest_FM):
                    yield self._rest_FM
                self._run, self._rest_FM = 0, self._rest_FM[:0]
                yield part_FM

    def _add_silent(self, part_FM: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yield what belongs to the start of a run; hold back the last frames of the rest, which may end it."""
        first = min(max(self._kept - self._run, 0), len(part_FM))
        self._run += len(part_FM)
        if first:
            yield part_FM[:first]
        held_FM = np.concatenate([self._rest_FM, part_FM[first:]])
        self._rest_FM = held_FM[max(len(held_FM) - self._kept, 0) :].copy()
        self.dropped_frames += len(held_FM) - len(self._rest_FM)
