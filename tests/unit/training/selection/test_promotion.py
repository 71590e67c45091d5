import json
from dataclasses import replace

import pytest

from store.fs.files import join, read_bytes, write_atomic
from store.model_registry import champion, promote
from training.selection.promotion import (
    PromotionCriteria,
    PromotionDecision,
    apply_decision,
    decide_first_promotion,
    has_decision,
    read_refusal_criteria,
)

BETTER, WORSE = PromotionDecision(True, "better by 5 points"), PromotionDecision(False, "worse")
CRITERIA = PromotionCriteria("A", margin=0.01, confidence=0.95, max_genre_f1_drop=0.05)


@pytest.fixture
def models(tmp_path):
    """Write three versions, A in service."""
    for name in "ABC":
        write_atomic(f"{tmp_path}/{name}/model.json", b"{}")
    promote(str(tmp_path), "A")
    return str(tmp_path)


def test_a_better_version_goes_into_service_and_a_worse_one_does_not(models):
    assert apply_decision(models, "B", WORSE, CRITERIA) == WORSE
    assert champion(models) == "A"
    assert apply_decision(models, "B", BETTER, CRITERIA) == BETTER
    assert champion(models) == "B"
    record = json.loads(read_bytes(join(models, "promotion_decisions/B.json")))
    assert (record["is_better"], record["reason"], record["criteria"]["champion"]) == (
        True,
        "better by 5 points",
        "A",
    )
    assert read_refusal_criteria(models, "B") is None, "it was not refused"


def test_a_version_promoted_by_hand_during_the_training_stays_in_service(models):
    promote(models, "C", "by hand, while B was trained")
    applied = apply_decision(models, "B", BETTER, CRITERIA)
    assert not applied.is_better
    assert "C is in service, no longer A, which B was to replace" in applied.reason
    assert champion(models) == "C"
    assert read_refusal_criteria(models, "B") != replace(CRITERIA, champion="C"), (
        "so B is compared again, with C"
    )


def test_a_refusal_holds_for_the_same_criteria_only(models):
    assert not has_decision(models, "B")
    assert read_refusal_criteria(models, "B") is None
    apply_decision(models, "B", WORSE, CRITERIA)
    assert has_decision(models, "B")
    assert read_refusal_criteria(models, "B") == CRITERIA
    for change in ({"champion": None}, {"margin": 0.0}, {"confidence": 0.9}, {"max_genre_f1_drop": 0.1}):
        assert read_refusal_criteria(models, "B") != replace(CRITERIA, **change)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b'{"version": "B", "is_better": false}', b'{"is_better": false, "criteria": {}}'],
)
def test_a_damaged_record_is_decided_again(models, content):
    write_atomic(join(models, "promotion_decisions/B.json"), content)
    assert has_decision(models, "B")
    assert read_refusal_criteria(models, "B") is None


def test_the_first_model_must_beat_a_random_guess():
    assert decide_first_promotion(5, 12, 1 / 3) == PromotionDecision(
        True, "no champion yet; 5 of 12 test tracks right, chance 33.3%"
    )
    assert not decide_first_promotion(3, 12, 1 / 3).is_better
