"""The comparison of two models on the same test tracks, resampled together.

Axes: T tracks, G genres, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from store.errors import BadInput
from training.evaluation.bootstrap import (
    INTERVAL_PERCENTILES,
    RESAMPLES,
    ResampleScores,
    TrackOutcomes,
    draw_artists,
    index_artists,
    score_resamples,
    sum_by_artist,
)
from training.evaluation.calibration import Calibration, Target
from training.evaluation.held_out_predictions import select_split, to_matrix
from training.evaluation.metrics import Scores, score, track_outcomes


@dataclass(frozen=True)
class Gain:
    """A score of both models, and by how much the challenger's is better: positive is better, for the log-loss too.

    `low` and `high` are the 95 % interval of the gain; `share_better` is the share of resamples in
    which it exceeds the margin. All three are null where the tracks are by a single artist.
    """

    champion: float
    challenger: float
    gain: float
    low: float | None
    high: float | None
    share_better: float | None


@dataclass(frozen=True)
class GenreGain:
    """F1 of one genre by both models; null where no track has it."""

    genre: str
    support: int
    champion: float | None
    challenger: float | None
    gain: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Two models on the same tracks."""

    tracks: int
    artists: int
    margin: float
    macro_f1: Gain
    accuracy: Gain
    log_loss: Gain
    genres: tuple[GenreGain, ...]


def compare(
    champion: pa.Table,
    challenger: pa.Table,
    genres: Sequence[str],
    target: Target,
    *,
    champion_calibration: Calibration = Calibration(),  # noqa: B008  it is frozen
    challenger_calibration: Calibration = Calibration(),  # noqa: B008  it is frozen
    margin: float = 0.0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare the predictions of two models for the same test tracks, each with its own calibration.

    Both tables are HELD_OUT_PREDICTIONS_SCHEMA rows with the networks' own probabilities, in the order of
    `genres`; rows of other splits are left out, as weights and thresholds were chosen on them.

    Raises: BadInput if the test tracks or their truth differ, or there is none.
    Source: paired cluster bootstrap: both models are scored on the same resampled artists.
    """
    old, new = (_test_rows(table) for table in (champion, challenger))
    _check_same(old, new, len(genres))
    truth_TG = to_matrix(old, "truth")
    sides = [
        (truth_TG, to_matrix(rows, "probabilities"), genres, target, calibration)
        for rows, calibration in ((old, champion_calibration), (new, challenger_calibration))
    ]
    scores, outcomes = [score(*side) for side in sides], [track_outcomes(*side) for side in sides]
    artist_T = index_artists(old["artist"].to_pylist())
    artists = int(artist_T.max()) + 1
    resampled = _resample(outcomes, artist_T, resamples if artists > 1 else 0, seed, len(genres))
    return _gains(scores, resampled, artists, margin)


def _gains(
    scores: Sequence[Scores], resampled: Sequence[ResampleScores], artists: int, margin: float
) -> Comparison:
    (old, new), (before, after) = scores, resampled
    return Comparison(
        tracks=old.tracks,
        artists=artists,
        margin=margin,
        macro_f1=_gain(old.macro_f1, new.macro_f1, after.macro_f1() - before.macro_f1(), margin),
        accuracy=_gain(old.accuracy, new.accuracy, after.accuracy_R - before.accuracy_R, margin),
        log_loss=_gain(old.log_loss, new.log_loss, before.log_loss_R - after.log_loss_R, margin, sign=-1),
        genres=_genre_gains(old, new, after.f1_RG - before.f1_RG),
    )


def _test_rows(table: pa.Table) -> pa.Table:
    return select_split(table, "test").sort_by("track_id")


def _check_same(champion: pa.Table, challenger: pa.Table, genres: int) -> None:
    ids = [table["track_id"].to_pylist() for table in (champion, challenger)]
    if ids[0] != ids[1] or not ids[0]:
        alone = [len(set(one) - set(other)) for one, other in (ids, ids[::-1])]
        raise BadInput(
            f"two models can be compared on the same test tracks only: the champion predicted "
            f"{len(ids[0]):,} ({alone[0]:,} of them alone), the challenger {len(ids[1]):,} "
            f"({alone[1]:,} alone); predict the same tracks with both"
        )
    for name, table in (("champion", champion), ("challenger", challenger)):
        for column in ("truth", "probabilities"):
            lengths = set(pc.list_value_length(table[column]).to_pylist())
            if lengths != {genres}:
                raise BadInput(
                    f"the {name}'s {column} are {sorted(lengths)} values a track; want {genres}, one a genre"
                )
    if champion["truth"].to_pylist() != challenger["truth"].to_pylist():
        raise BadInput(
            "the test tracks of champion and challenger are the same, but not their genres: the catalogue "
            "has changed; predict the tracks as they are labelled now with the champion"
        )


def _resample(
    outcomes: Sequence[TrackOutcomes], artist_T: NDArray[np.int64], resamples: int, seed: int, genres: int
) -> list[ResampleScores]:
    """Score both models on the same resamples: paired, since tracks hard for one are hard for the other."""
    sums = [sum_by_artist(each, artist_T) for each in outcomes]
    blocks = [
        [score_resamples(sums_AK, drawn_RA) for sums_AK in sums]
        for drawn_RA in draw_artists(int(artist_T.max()) + 1, seed, resamples)
    ]
    return [
        ResampleScores(
            np.concatenate([np.empty(0), *(block[side].accuracy_R for block in blocks)]),
            np.concatenate([np.empty(0), *(block[side].log_loss_R for block in blocks)]),
            np.concatenate([np.empty((0, genres)), *(block[side].f1_RG for block in blocks)]),
        )
        for side in range(len(outcomes))
    ]


def _gain(
    champion: float, challenger: float, gain_R: NDArray[np.float64], margin: float, sign: int = 1
) -> Gain:
    gain = sign * (challenger - champion)
    low, high = _bounds(gain, gain_R)
    share = float((gain_R > margin).mean()) if len(gain_R) else None
    return Gain(champion, challenger, gain, low, high, share)


def _genre_gains(champion: Scores, challenger: Scores, gain_RG: NDArray[np.float64]) -> tuple[GenreGain, ...]:
    rows = []
    for genre, (old, new) in enumerate(zip(champion.genres, challenger.genres, strict=True)):
        gain_R = gain_RG[:, genre]
        gain = new.f1 - old.f1 if old.f1 is not None and new.f1 is not None else None
        low, high = _bounds(gain, gain_R[~np.isnan(gain_R)])
        rows.append(GenreGain(old.genre, old.support, old.f1, new.f1, gain, low, high))
    return tuple(rows)


def _bounds(gain: float | None, gain_R: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the interval, widened to contain the gain itself where resampling shifts it."""
    if gain is None or not len(gain_R):
        return None, None
    low, high = (float(bound) for bound in np.percentile(gain_R, INTERVAL_PERCENTILES))
    return min(low, gain), max(high, gain)
