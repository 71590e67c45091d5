import json
from dataclasses import replace

import pytest

from store.fs.files import join, read_bytes, write_atomic
from store.model_registry import champion, promote
from training.selection.champion import Verdict
from training.selection.verdicts import Terms, settle, terms_of_refusal, was_judged

BETTER, WORSE = Verdict(True, "better by 5 points"), Verdict(False, "worse")
TERMS = Terms("A", margin=0.01, confidence=0.95, genre_bound=0.05)


@pytest.fixture
def models(tmp_path):
    """Lay out three versions, A in service."""
    for name in "ABC":
        write_atomic(f"{tmp_path}/{name}/model.json", b"{}")
    promote(str(tmp_path), "A")
    return str(tmp_path)


def test_a_better_version_goes_into_service_and_a_worse_one_does_not(models):
    assert settle(models, "B", WORSE, TERMS) == WORSE
    assert champion(models) == "A"
    assert settle(models, "B", BETTER, TERMS) == BETTER
    assert champion(models) == "B"
    note = json.loads(read_bytes(join(models, "verdicts/B.json")))
    assert (note["is_better"], note["reason"], note["terms"]["champion"]) == (True, "better by 5 points", "A")
    assert terms_of_refusal(models, "B") is None, "it was not refused"


def test_whom_a_person_promoted_meanwhile_stays_in_service(models):
    promote(models, "C", "by hand, while B was trained")
    settled = settle(models, "B", BETTER, TERMS)
    assert not settled.is_better
    assert "C is in service, no longer A, which B was to replace" in settled.reason
    assert champion(models) == "C"
    assert terms_of_refusal(models, "B") != replace(TERMS, champion="C"), "so it is judged again, against C"


def test_a_refusal_holds_by_the_same_terms_only(models):
    assert not was_judged(models, "B")
    assert terms_of_refusal(models, "B") is None
    settle(models, "B", WORSE, TERMS)
    assert was_judged(models, "B")
    assert terms_of_refusal(models, "B") == TERMS
    for change in ({"champion": None}, {"margin": 0.0}, {"confidence": 0.9}, {"genre_bound": 0.1}):
        assert terms_of_refusal(models, "B") != replace(TERMS, **change)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b'{"version": "B", "is_better": false}', b'{"is_better": false, "terms": {}}'],
)
def test_a_verdict_that_does_not_tell_its_terms_is_judged_again(models, content):
    write_atomic(join(models, "verdicts/B.json"), content)
    assert was_judged(models, "B")
    assert terms_of_refusal(models, "B") is None
