"""What a night decided, and by which terms: a verdict holds only as long as these are the same.

MODELS/promotion_decisions/VERSION.json     the last verdict on a version
"""

import json
from dataclasses import asdict, dataclass

from store.errors import CommitConflict
from store.fs.files import exists, join, read_bytes, write_atomic
from store.model_registry import promote
from training.selection.champion import PromotionDecision


@dataclass(frozen=True)
class PromotionCriteria:
    """What a verdict depends on, beside the new model: its rival, and how much better it had to be."""

    champion: str | None
    margin: float
    confidence: float
    max_genre_f1_drop: float


def apply_decision(
    models: str, version: str, verdict: PromotionDecision, criteria: PromotionCriteria
) -> PromotionDecision:
    """Promote a version that is better; note the verdict, so that it is not judged twice; give what holds.

    Where another champion came into service since, the version is refused: it was never compared with that.
    """
    if verdict.is_better:
        try:
            promote(models, version, verdict.reason, expected=criteria.champion)
        except CommitConflict as why:
            verdict = PromotionDecision(is_better=False, reason=str(why))
    note = {"version": version, **asdict(verdict), "criteria": asdict(criteria)}
    write_atomic(_url(models, version), json.dumps(note, indent=1).encode())
    return verdict


def has_decision(models: str, version: str) -> bool:
    """Say whether there is a verdict on a version, whatever it is."""
    return exists(_url(models, version))


def read_refusal_criteria(models: str, version: str) -> PromotionCriteria | None:
    """Give the terms by which a version was refused; None if it was not, or its verdict does not tell."""
    try:
        note = json.loads(read_bytes(_url(models, version)))
        return None if note["is_better"] else PromotionCriteria(**note["criteria"])
    except (FileNotFoundError, LookupError, TypeError, ValueError):  # damaged, or of an older version
        return None


def _url(models: str, version: str) -> str:
    return join(models, "promotion_decisions", f"{version}.json")
