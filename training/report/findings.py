"""What a report states beside its tables: headline, caveats, worst tracks, confusions, shares of time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from training.evaluation.metrics import Scores
from training.evaluation.tables import SplitResult, TrackResult
from training.evaluation.test_set_use import earlier_versions
from training.report.formatting import join_names, percent
from training.selection.model_choice import ModelChoice

MAX_SHOWN_TRACKS = 6
FEW_TRACKS = 100
FEW_ARTISTS = 20
TIME_LABELS = {
    "data_wait_share": "waiting for data",
    "compute_share": "forward and backward",
    "communication_share": "communication",
    "other_share": "other",
}


def headline(scores: Scores, baseline: Scores | None = None) -> str:
    """Return the accuracy in words, and first that the model does not beat its baseline, where it does not."""
    what = "tracks correct" if scores.target == "top" else "tracks with all their genres correct"
    found = f"{scores.correct:,} of {scores.tracks:,} {what}"
    if baseline is None or scores.correct > baseline.correct:
        return found
    return f"No better than its baseline: {found}, the baseline {baseline.correct:,}"


def across_folds(choice: ModelChoice | None) -> dict[str, float] | None:
    """Return the accuracies of the chosen model and of the baseline by which it was chosen; None without both."""
    accuracy_of = {} if choice is None else {each.name: each.accuracy for each in choice.scores}
    baselines = [] if choice is None else [each.accuracy for each in choice.scores if not each.is_candidate]
    if choice is None or choice.name not in accuracy_of or not baselines:
        return None
    return {"model": accuracy_of[choice.name], "baseline": baselines[0]}


def worst_tracks(results: Sequence[TrackResult]) -> tuple[list[TrackResult], bool]:
    """Return the wrong tracks, the least probable truth first; if none is wrong, the least certain tracks.

    The second value is whether they are wrong.
    """
    wrong = sorted((it for it in results if not it.correct), key=lambda it: it.truth_probability)
    uncertain = sorted(results, key=lambda it: it.predicted_probability)
    return (wrong or uncertain)[:MAX_SHOWN_TRACKS], bool(wrong)


def track_label(result: TrackResult) -> str:
    """Return artist and title of a track, or its id where it has no title."""
    if result.title is None:
        return result.track_id
    return f"{result.artist or 'unknown artist'} \N{EN DASH} {result.title}"


def describe_prediction(result: TrackResult) -> str:
    """Return truth and prediction in few words: of several genres, those that are wrong."""
    predicted, true = percent(result.predicted_probability), percent(result.truth_probability)
    if result.correct:
        return f"{' + '.join(result.truth) or 'no genre'}, predicted with {predicted}"
    if len(result.truth) == len(result.predicted) == 1:
        return f"{result.truth[0]} ({true}), predicted {result.predicted[0]} ({predicted})"
    missed = " + ".join(genre for genre in result.truth if genre not in result.predicted)
    added = " + ".join(genre for genre in result.predicted if genre not in result.truth)
    return "; ".join(filter(None, [missed and f"missed {missed}", added and f"wrongly predicted {added}"]))


def caveats(
    result: SplitResult, test_use: Mapping[str, Any] | None = None, *, fitted: bool = False
) -> Iterator[str]:
    """Yield what the scores of a split cannot show; `fitted` if a calibration was fitted on validation tracks."""
    scores = result.scores
    if test_use:
        yield from _reuse_caveats(test_use)
    if fitted:
        yield (
            "Weights, temperature and thresholds were chosen on the validation tracks, so the scores of those "
            "are too optimistic. The test tracks were used for no choice."
        )
    if scores.tracks < FEW_TRACKS:
        yield (
            f"The test set is small: one track more or less correct changes the accuracy by "
            f"{percent(1 / scores.tracks)}."
        )
    yield from _interval_caveats(result)
    if scores.untested:
        yield (
            f"No test track has {join_names(scores.untested)}: nothing is known about "
            f"{'it' if len(scores.untested) == 1 else 'them'}, and macro F1 is the mean of the others."
        )


def _reuse_caveats(test_use: Mapping[str, Any]) -> Iterator[str]:
    if earlier := earlier_versions(test_use):
        most = max(tracks for _, tracks in earlier)
        yield (
            f"{len(earlier):,} earlier {'version was' if len(earlier) == 1 else 'versions were'} scored on up to "
            f"{most:,} of these {test_use['tracks']:,} test tracks: choosing between versions by these scores "
            "fits them to the test set a little."
        )


def _interval_caveats(result: SplitResult) -> Iterator[str]:
    scores, interval = result.scores, result.interval
    if interval is None:
        yield "All test tracks are by one artist, so there is no interval: the accuracy may be luck."
        return
    if interval.method == "exact by artist":
        yield (
            f"All predictions are {'correct' if scores.correct else 'wrong'}, which no resampling can vary: "
            f"the interval is the exact one for {interval.artists} independent predictions, one an artist."
        )
    elif interval.artists < FEW_ARTISTS:
        yield (
            f"These tracks are by {interval.artists} artists only. The interval draws artists, not tracks, "
            "and with so few of them it is rough, and rather too narrow than too wide."
        )
    if interval.low <= scores.chance <= interval.high:
        yield (
            f"Chance ({percent(scores.chance)}) lies within the interval: this test alone does not show that "
            "the model does better than always predicting the most frequent label."
        )


def confusions(scores: Scores, most: int = 3) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions: true genre, predicted genre, number of tracks."""
    names = [each.genre for each in scores.genres]
    found = [
        (names[row], names[column], count)
        for row, counts in enumerate(scores.confusion or ())
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(found, key=lambda each: -each[2])[:most]


def time_shares(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the shares of a step's time, each the mean over the epochs that have it."""
    shares = {
        label: [row[key] for row in history if row.get(key) is not None] for key, label in TIME_LABELS.items()
    }
    return {label: float(np.mean(values)) for label, values in shares.items() if values}
