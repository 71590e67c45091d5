"""How right the guesses are: scores of whole tracks, as plain data that JSON can hold.

Axes: T tracks, G genres.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

Target = Literal["top", "multi"]
TOLD_FROM = 0.5  # a multi-label genre is told from this probability on
SURE = 1e-7  # a probability of 0 would make the log-loss infinite


@dataclass(frozen=True)
class GenreScore:
    """Scores of one genre; null where there is nothing to divide by.

    `support` counts the tracks that have it, `guessed` those that were told to have it.
    """

    genre: str
    support: int
    guessed: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Scores:
    """Scores of a set of tracks.

    `accuracy` is the share of tracks whose genres are all told right (multi-label: exact
    match); `chance` what always giving the commonest answer of these tracks would reach.
    `macro_f1` is the mean over genres, but for the `untested` ones that no track has.
    `confusion` counts tracks, truth down and guess across; null where tracks bear several genres.
    `log_loss` is in nats, and so is `log_loss_error`, the standard error of that mean over tracks.
    """

    target: Target
    tracks: int
    right: int
    accuracy: float
    chance: float
    macro_f1: float
    log_loss: float
    log_loss_error: float
    genres: tuple[GenreScore, ...]
    untested: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] | None


@dataclass(frozen=True)
class Interval:
    """Where the accuracy of many more such tracks would lie, 95 times of 100."""

    low: float
    high: float
    artists: int
    method: Literal["bootstrap by artist", "exact by artist"]


def score(truth_TG: ArrayLike, probabilities_TG: ArrayLike, genres: Sequence[str], target: Target) -> Scores:
    """Compare the probabilities of some tracks with the truth.

    Shapes: truth_TG (T, G) of 0 and 1, exactly one 1 a track where target is top; at least one track.
    """
    truth = np.asarray(truth_TG) > 0
    probabilities = np.asarray(probabilities_TG, np.float64)
    assert truth.shape == probabilities.shape == (len(truth), len(genres)), "one value a track and genre"
    assert len(truth), "at least one track"
    assert np.isfinite(probabilities).all(), "finite probabilities"
    assert target == "multi" or (truth.sum(axis=1) == 1).all(), "one genre a track"
    told = guess(probabilities, target)
    right = int((told == truth).all(axis=1).sum())
    per_genre = _score_genres(truth, told, genres)
    f1s = [each.f1 for each in per_genre if each.f1 is not None]
    return Scores(
        target=target,
        tracks=len(truth),
        right=right,
        accuracy=right / len(truth),
        chance=max(Counter(map(bytes, truth)).values()) / len(truth),
        macro_f1=float(np.mean(f1s)) if f1s else 0.0,
        log_loss=_log_loss(truth, probabilities, target),
        log_loss_error=_log_loss_error(truth, probabilities, target),
        genres=per_genre,
        untested=tuple(each.genre for each in per_genre if each.support == 0),
        confusion=_confuse(truth, told) if target == "top" else None,
    )


def guess(probabilities_TG: ArrayLike, target: Target) -> NDArray[np.bool_]:
    """Say which genres a track is told to have. Shapes: (T, G) -> (T, G).

    The likeliest one where tracks have one genre, else all from TOLD_FROM on.
    """
    probabilities = np.asarray(probabilities_TG)
    match target:
        case "top":
            likeliest_T = probabilities.argmax(axis=1)
            return np.asarray(likeliest_T[:, None] == np.arange(probabilities.shape[1]))
        case "multi":
            return np.asarray(probabilities >= TOLD_FROM)


def belief(answer_TG: ArrayLike, probabilities_TG: ArrayLike, target: Target) -> NDArray[np.float64]:
    """Say what probability was given to an answer. Shapes: (T, G), (T, G) -> (T,).

    Where tracks bear several genres it is the geometric mean over genres of the
    probability given to "has it" or "has it not": minus its logarithm is the track's log-loss.
    """
    answer, probabilities = np.asarray(answer_TG) > 0, np.asarray(probabilities_TG, np.float64)
    match target:
        case "top":
            return np.asarray(np.where(answer, probabilities, 0.0).sum(axis=1))
        case "multi":
            of_each = np.where(answer, probabilities, 1 - probabilities).clip(SURE, 1)
            return np.asarray(np.exp(np.log(of_each).mean(axis=1)))


def accuracy_interval(
    right_T: ArrayLike, artists: Sequence[str | None], *, resamples: int = 2_000, seed: int = 0
) -> Interval | None:
    """Say between which bounds the accuracy lies, with 95 % confidence; None for a single artist.

    Source: cluster bootstrap, percentiles (Field & Welsh, 2007); Clopper & Pearson (1934).

    Songs of one artist are right or wrong together, so artists are drawn, not tracks; a
    track of unknown artist counts as an artist of its own. If all tracks are right (or all
    wrong), so is every resample, which would claim certainty: then the bound is the
    exact one, for as many answers as there are artists.
    """
    right = np.asarray(right_T, bool)
    names = [(name,) if name is not None else row for row, name in enumerate(artists)]
    rows = {name: number for number, name in enumerate(dict.fromkeys(names))}
    artist_T = np.array([rows[name] for name in names])
    count = len(rows)
    if count < 2:
        return None
    if right.all() or not right.any():
        bound = 0.025 ** (1 / count)
        low, high = (bound, 1.0) if right.all() else (0.0, 1 - bound)
        return Interval(low, high, count, "exact by artist")
    right_of = np.bincount(artist_T, right, count)
    tracks_of = np.bincount(artist_T, minlength=count)
    draw = np.random.default_rng(seed)
    drawn = (draw.integers(count, size=count) for _ in range(resamples))
    accuracies = [right_of[artists_].sum() / tracks_of[artists_].sum() for artists_ in drawn]
    low, high = (float(bound) for bound in np.percentile(accuracies, [2.5, 97.5]))
    return Interval(low, high, count, "bootstrap by artist")


def _score_genres(
    truth: NDArray[np.bool_], told: NDArray[np.bool_], genres: Sequence[str]
) -> tuple[GenreScore, ...]:
    # A column each, so one genre a track is several yes-or-no questions too.
    precision, recall, f1, support = precision_recall_fscore_support(
        truth.astype(np.int8), told.astype(np.int8), average=None, zero_division=np.nan
    )
    return tuple(
        GenreScore(
            genre=genre,
            support=int(support[row]),
            guessed=int(told[:, row].sum()),
            precision=_number(precision[row]) if support[row] else None,
            recall=_number(recall[row]) if support[row] else None,
            f1=_number(f1[row]) if support[row] else None,
        )
        for row, genre in enumerate(genres)
    )


def _confuse(truth: NDArray[np.bool_], told: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    counts = confusion_matrix(truth.argmax(axis=1), told.argmax(axis=1), labels=range(truth.shape[1]))
    return tuple(tuple(int(count) for count in row) for row in counts)


def _log_loss(truth: NDArray[np.bool_], probabilities: NDArray[np.float64], target: Target) -> float:
    sure = probabilities.clip(SURE, 1 - SURE)
    match target:
        case "top":
            sure /= sure.sum(axis=1, keepdims=True)
            return float(log_loss(truth.argmax(axis=1), sure, labels=range(truth.shape[1])))
        case "multi":
            return float(log_loss(truth.ravel(), sure.ravel(), labels=[False, True]))


def _log_loss_error(truth: NDArray[np.bool_], probabilities: NDArray[np.float64], target: Target) -> float:
    """Give the standard error; 0 for a single track, of which it cannot be known."""
    loss_T = -np.log(belief(truth, probabilities, target).clip(SURE, 1))
    return float(loss_T.std() / np.sqrt(max(len(loss_T) - 1, 1)))


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
