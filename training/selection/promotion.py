"""Whether a challenger replaces the champion, and the record of that decision.

MODELS/promotion_decisions/VERSION.json     the last decision on a version
"""

import json
from dataclasses import asdict, dataclass

from store.errors import CommitConflict
from store.fs.files import exists, join, read_bytes, write_atomic
from store.model_registry import promote
from training.inference.model_version import ModelIdentity
from training.selection.comparison import Comparison


@dataclass(frozen=True)
class PromotionDecision:
    """Whether the challenger replaces the champion, and why."""

    is_better: bool
    reason: str


@dataclass(frozen=True)
class PromotionCriteria:
    """What a decision depends on beside the new model: the champion, and how much better the model had to be.

    A decision holds only as long as these stay the same.
    """

    champion: str | None
    margin: float
    confidence: float
    max_genre_f1_drop: float


def decide_promotion(
    comparison: Comparison, *, confidence: float, max_genre_f1_drop: float
) -> PromotionDecision:
    """Decide whether the challenger is better by the comparison's margin, and on no genre much worse."""
    gain = comparison.macro_f1
    reason = (
        f"macro F1 {gain.champion:.3f} -> {gain.challenger:.3f} ({gain.gain:+.3f}) on {comparison.tracks:,} "
        f"test tracks by {comparison.artists:,} artists"
    )
    if gain.share_better is None:
        return PromotionDecision(False, f"{reason}; the tracks of one artist cannot show a difference")
    reason += f"; better by more than {comparison.margin:g} in {gain.share_better:.1%} of the resamples"
    if gain.gain <= comparison.margin or gain.share_better < confidence:
        return PromotionDecision(False, f"{reason}, wanted {confidence:.1%}")
    worse = [it for it in comparison.genres if it.gain is not None and it.gain < -max_genre_f1_drop]
    if worse:
        names = ", ".join(f"{it.genre} ({it.champion:.2f} -> {it.challenger:.2f})" for it in worse)
        return PromotionDecision(
            False, f"{reason}; but worse by more than {max_genre_f1_drop:g} in F1 of {names}"
        )
    return PromotionDecision(True, reason)


def decide_first_promotion(correct: int, tracks: int, chance: float) -> PromotionDecision:
    """Decide whether a model may serve where none does: if it is correct more often than a random guess."""
    return PromotionDecision(
        correct / tracks > chance,
        f"no champion yet; {correct} of {tracks} test tracks right, chance {chance:.1%}",
    )


def refuse_forgotten_genres(champion: ModelIdentity, challenger: ModelIdentity) -> PromotionDecision | None:
    """Refuse a challenger that lacks a genre of the champion; return None if it lacks none.

    Scores cannot show this: they are computed on the genres that both have.
    """
    missing = [genre for genre in champion.genres if genre not in challenger.genres]
    if not missing:
        return None
    return PromotionDecision(
        False,
        f"lacks {', '.join(missing)}, which the champion predicts; to promote it all the same, use "
        "`spectrogram-one models promote`",
    )


def apply_decision(
    models: str, version: str, decision: PromotionDecision, criteria: PromotionCriteria
) -> PromotionDecision:
    """Promote a version that is better; record the decision, so that it is not made twice; return what was recorded.

    If the champion changed since the comparison, the version is refused: it was not compared with the new one.
    """
    if decision.is_better:
        try:
            promote(models, version, decision.reason, expected=criteria.champion)
        except CommitConflict as why:
            decision = PromotionDecision(False, str(why))
    record = {"version": version, **asdict(decision), "criteria": asdict(criteria)}
    write_atomic(_url(models, version), json.dumps(record, indent=1).encode())
    return decision


def has_decision(models: str, version: str) -> bool:
    """Return whether there is a decision on a version, whatever it is."""
    return exists(_url(models, version))


def read_refusal_criteria(models: str, version: str) -> PromotionCriteria | None:
    """Return the criteria by which a version was refused; None if it was not, or the record is damaged."""
    try:
        record = json.loads(read_bytes(_url(models, version)))
        return None if record["is_better"] else PromotionCriteria(**record["criteria"])
    except (FileNotFoundError, LookupError, TypeError, ValueError):
        return None


def _url(models: str, version: str) -> str:
    return join(models, "promotion_decisions", f"{version}.json")
