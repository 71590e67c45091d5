"""Whether one model is better than another: both on the same test tracks, resampled together.

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
from training.evaluation.held_out_predictions import to_matrix
from training.evaluation.metrics import Scores, score, track_outcomes


@dataclass(frozen=True)
class Gain:
    """A score of both models, and how much better the challenger's is: above 0 is better, log-loss too.

    `low` and `high` bound the gain, 95 times of 100; `share_better` is the share of resamples in
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
    """Compare what two models said of the same test tracks, each by its own calibration.

    Both tables are HELD_OUT_PREDICTIONS_SCHEMA rows with the networks' own probabilities, in the order of
    `genres`; rows of other splits are left out, as they chose weights and thresholds.

    Raises: BadInput if the test tracks, or what is true of them, are not the same; or there is none.
    Source: paired cluster bootstrap: both models are scored on the very artists that were drawn.
    """
    old, new = (_test_rows(table) for table in (champion, challenger))
    _check_same(old, new, len(genres))
    sides = [(old, champion_calibration), (new, challenger_calibration)]
    truth_TG = to_matrix(old, "truth")
    raws = [to_matrix(rows, "probabilities") for rows, _ in sides]
    scores = [score(truth_TG, raw, genres, target, side[1]) for raw, side in zip(raws, sides, strict=True)]
    outcomes = [
        track_outcomes(truth_TG, raw, genres, target, side[1]) for raw, side in zip(raws, sides, strict=True)
    ]
    artist_T = index_artists(old["artist"].to_pylist())
    artists = int(artist_T.max()) + 1
    before, after = _resample(outcomes, artist_T, resamples if artists > 1 else 0, seed, len(genres))
    return Comparison(
        tracks=len(truth_TG),
        artists=artists,
        margin=margin,
        macro_f1=_gain(scores[0].macro_f1, scores[1].macro_f1, after.macro_f1() - before.macro_f1(), margin),
        accuracy=_gain(scores[0].accuracy, scores[1].accuracy, after.accuracy_R - before.accuracy_R, margin),
        log_loss=_gain(
            scores[0].log_loss, scores[1].log_loss, before.log_loss_R - after.log_loss_R, margin, sign=-1
        ),
        genres=_genre_gains(scores[0], scores[1], after.f1_RG - before.f1_RG),
    )


def _test_rows(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["split"], "test")).sort_by("track_id")


def _check_same(champion: pa.Table, challenger: pa.Table, genres: int) -> None:
    ids = [table["track_id"].to_pylist() for table in (champion, challenger)]
    if ids[0] != ids[1] or not ids[0]:
        alone = [len(set(one) - set(other)) for one, other in (ids, ids[::-1])]
        raise BadInput(
            f"two models can be compared on the same test tracks only: the champion was heard on "
            f"{len(ids[0]):,} ({alone[0]:,} of them alone), the challenger on {len(ids[1]):,} "
            f"({alone[1]:,} alone); let both listen to the same tracks"
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
            "has changed; let the champion listen to the tracks as they are labelled now"
        )


def _resample(
    outcomes: Sequence[TrackOutcomes], artist_T: NDArray[np.int64], resamples: int, seed: int, genres: int
) -> list[ResampleScores]:
    """Score both sides on the same resamples: paired, since what is hard for one is hard for the other."""
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
    for place, (old, new) in enumerate(zip(champion.genres, challenger.genres, strict=True)):
        gain_R = gain_RG[:, place]
        gain = new.f1 - old.f1 if old.f1 is not None and new.f1 is not None else None
        low, high = _bounds(gain, gain_R[~np.isnan(gain_R)])
        rows.append(GenreGain(old.genre, old.support, old.f1, new.f1, gain, low, high))
    return tuple(rows)


def _bounds(gain: float | None, gain_R: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Give the interval, widened to hold the gain itself where resampling shifts it."""
    if gain is None or not len(gain_R):
        return None, None
    low, high = (float(bound) for bound in np.percentile(gain_R, INTERVAL_PERCENTILES))
    return min(low, gain), max(high, gain)
