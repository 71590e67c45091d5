"""Two models that need not know the same genres: compared on the ground they share, and judged.

Axes: T tracks, G genres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import BadInput
from training.evaluation.calibration import Calibration
from training.evaluation.held_out_predictions import to_matrix
from training.fit.labels import select_labelled_tracks
from training.inference.model_version import ModelIdentity
from training.selection.comparison import Comparison, compare


@dataclass(frozen=True)
class Candidate:
    """A model, and HELD_OUT_PREDICTIONS_SCHEMA rows of what it said; `truth_genres` are the columns of their truth."""

    identity: ModelIdentity
    predictions: pa.Table
    truth_genres: tuple[str, ...]


@dataclass(frozen=True)
class PromotionDecision:
    """Whether the challenger takes the champion's place, and why."""

    is_better: bool
    reason: str


def compare_candidates(champion: Candidate, challenger: Candidate, *, margin: float = 0.0) -> Comparison:
    """Compare two models on the test tracks that both were heard on, by the genres that both know.

    Raises: BadInput if they share less than two genres or no test track, or answer different questions.
    """
    target = challenger.identity.training.target
    shared = shared_genres(champion.identity, challenger.identity)
    sides = [restrict_to_genres(each, shared) for each in (champion, challenger)]
    both = pc.is_in(sides[0]["track_id"], value_set=sides[1]["track_id"].combine_chunks())
    champion_rows = sides[0].filter(both)
    also = pc.is_in(sides[1]["track_id"], value_set=champion_rows["track_id"].combine_chunks())
    return compare(
        champion_rows,
        sides[1].filter(also),
        shared,
        target,
        champion_calibration=_decide_on(champion.identity, shared),
        challenger_calibration=_decide_on(challenger.identity, shared),
        margin=margin,
    )


def shared_genres(champion: ModelIdentity, challenger: ModelIdentity) -> tuple[str, ...]:
    """Name the genres that both know, in the challenger's order.

    Raises: BadInput if these are less than two, or the two answer different questions.
    """
    targets = champion.training.target, challenger.training.target
    if targets[0] != targets[1]:
        raise BadInput(
            f"the champion was trained for target {targets[0]}, the challenger for {targets[1]}: they cannot "
            "be compared; train for the same target, or promote one with `spectrogram-one models promote`"
        )
    shared = tuple(genre for genre in challenger.genres if genre in champion.genres)
    if len(shared) < 2:
        raise BadInput(
            f"champion and challenger share {len(shared)} genres ({', '.join(champion.genres)}; "
            f"{', '.join(challenger.genres)}); a comparison needs two: choose one with "
            "`spectrogram-one models promote`"
        )
    return shared


def check_forgotten_genres(champion: ModelIdentity, challenger: ModelIdentity) -> PromotionDecision | None:
    """Refuse a challenger that does not know all that the champion tells; None if it does.

    Scores cannot speak of this: they are of the genres that both know.
    """
    missing = [genre for genre in champion.genres if genre not in challenger.genres]
    if not missing:
        return None
    reason = (
        f"does not know {', '.join(missing)}, which the champion tells; promote by hand with "
        "`spectrogram-one models promote` if that is wanted"
    )
    return PromotionDecision(is_better=False, reason=reason)


def count_incomparable_tracks(tracks: pa.Table, champion: ModelIdentity, challenger: ModelIdentity) -> int:
    """Count the test tracks of a snapshot of whose genres only one of the two models knows any."""
    known = [*challenger.genres, *(genre for genre in champion.genres if genre not in challenger.genres)]
    chosen = select_labelled_tracks(tracks, challenger.training.target, known)
    tests = chosen.filter(pc.equal(chosen["split"], "test"))
    both = [genre in champion.genres and genre in challenger.genres for genre in known]
    return sum(
        not any(has and shared for has, shared in zip(row, both, strict=True))
        for row in tests["target"].to_pylist()
    )


def restrict_to_genres(candidate: Candidate, shared: Sequence[str]) -> pa.Table:
    """Keep the test tracks that have a shared genre, and of truth and probabilities what is said of these."""
    tests = candidate.predictions.filter(pc.equal(candidate.predictions["split"], "test"))
    if not len(tests):
        return tests
    truth_TG = to_matrix(tests, "truth")[:, [candidate.truth_genres.index(genre) for genre in shared]]
    probability_TG = to_matrix(tests, "probabilities")[
        :, [candidate.identity.genres.index(genre) for genre in shared]
    ]
    if candidate.identity.training.target == "top" and len(shared) < len(candidate.identity.genres):
        probability_TG = probability_TG / np.maximum(probability_TG.sum(axis=1, keepdims=True), 1e-12)
    for name, values_TG in (("truth", truth_TG), ("probabilities", probability_TG)):
        place = tests.schema.get_field_index(name)
        values = pa.array(values_TG.tolist(), tests.schema.field(name).type)
        tests = tests.set_column(place, tests.schema.field(name), values)
    return tests.filter(pa.array((truth_TG > 0).any(axis=1)))


def _decide_on(identity: ModelIdentity, shared: Sequence[str]) -> Calibration:
    """Give a model's calibration for some of its genres."""
    calibration = identity.calibration
    of_genre = dict(zip(identity.genres, calibration.thresholds, strict=False))
    return calibration.model_copy(
        update={
            "thresholds": tuple(of_genre[genre] for genre in shared) if of_genre else (),
            "parents": {
                child: parent
                for child, parent in calibration.parents.items()
                if child in shared and parent in shared
            },
        }
    )


def decide_promotion(
    comparison: Comparison, *, confidence: float, max_genre_f1_drop: float
) -> PromotionDecision:
    """Say whether the challenger is better by the comparison's margin, and on no genre much worse."""
    gain = comparison.macro_f1
    told = (
        f"macro F1 {gain.champion:.3f} -> {gain.challenger:.3f} ({gain.gain:+.3f}) on {comparison.tracks:,} "
        f"test tracks by {comparison.artists:,} artists"
    )
    if gain.share_better is None:
        return PromotionDecision(is_better=False, reason=f"{told}; one artist cannot tell chance from skill")
    told = f"{told}; better by more than {comparison.margin:g} in {gain.share_better:.1%} of the resamples"
    if gain.gain <= comparison.margin or gain.share_better < confidence:
        return PromotionDecision(is_better=False, reason=f"{told}, wanted {confidence:.1%}")
    worse = [it for it in comparison.genres if it.gain is not None and it.gain < -max_genre_f1_drop]
    if worse:
        names = ", ".join(f"{it.genre} ({it.champion:.2f} -> {it.challenger:.2f})" for it in worse)
        return PromotionDecision(
            is_better=False, reason=f"{told}; but worse by more than {max_genre_f1_drop:g} in F1 of {names}"
        )
    return PromotionDecision(is_better=True, reason=told)
