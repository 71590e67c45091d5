import json
import pickle
from dataclasses import asdict

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.tagging.predictions import PREDICTIONS_SCHEMA
from store.tagging.statistics import (
    CHANGED_STATUSES,
    MAX_CHANGED_SAMPLES,
    MAX_SAMPLES_PER_REASON,
    MAX_TEXT_CHARS,
    TaggingStatistics,
    count_rows,
)

STATUSES = [*CHANGED_STATUSES, "kept", "unsure", "rejected", "skipped", "as-it-was"]
REASONS = [None, "has-genre", "low-confidence", "truncated", "changed"]


def rows():
    genres = st.none() | st.lists(st.sampled_from(["Rock", "Pop", "Ska"]), max_size=3)
    return st.lists(
        st.fixed_dictionaries(
            {
                "track_id": st.text(max_size=6),
                "status": st.sampled_from(STATUSES),
                "reason": st.sampled_from(REASONS),
                "detail": st.none() | st.text(max_size=3),
                "old_genres": genres,
                "genres": genres,
                "confidence": st.none() | st.floats(0, 1),
            }
        ),
        max_size=150,
    )


def table(drawn) -> pa.Table:
    return pa.Table.from_pylist(drawn, schema=PREDICTIONS_SCHEMA)


def many(count, **row):
    return [{"track_id": f"{number:06}.mp3", **row} for number in range(count)]


@given(drawn=rows(), cut=st.integers(0, 150))
def test_statistics_of_all_are_the_sum_of_those_of_parts(drawn, cut):
    whole, one, other = (
        count_rows(table(drawn)),
        count_rows(table(drawn[:cut])),
        count_rows(table(drawn[cut:])),
    )
    assert one + other == other + one == whole
    assert sum([one, other], TaggingStatistics()) == whole
    assert count_rows(table(drawn[::-1])) == whole, "the order of the files says nothing"
    assert pickle.loads(pickle.dumps(whole)) == whole
    json.dumps(asdict(whole))


@given(drawn=rows())
def test_every_file_is_counted_once(drawn):
    whole = count_rows(table(drawn))
    assert whole.files == len(drawn)
    assert whole.changed == sum(row["status"] in CHANGED_STATUSES for row in drawn)
    assert sum(whole.changed_confidences) + sum(whole.unchanged_confidences) == sum(
        row["confidence"] is not None for row in drawn
    )
    for status, reasons in whole.reasons.items():
        assert sum(reasons.values()) <= whole.statuses[status]
    assert len(whole.changes) == min(whole.changed, MAX_CHANGED_SAMPLES)
    assert {sample.status for sample in whole.unchanged_samples} == {*whole.statuses} - {*CHANGED_STATUSES}


def test_it_does_not_grow_with_the_files():
    few, lots = (
        count_rows(
            table(
                many(count, status="written", genres=["Rock"], confidence=0.5)
                + many(count, status="rejected", reason="truncated", detail="x" * 9_000)
            )
        )
        for count in (200, 5_000)
    )
    assert len(lots.changes) == MAX_CHANGED_SAMPLES
    assert len(lots.unchanged_samples) == MAX_SAMPLES_PER_REASON
    assert len(pickle.dumps(lots)) < 1.02 * len(pickle.dumps(few)) < 20_000
    assert max(len(sample.detail) for sample in lots.unchanged_samples) == MAX_TEXT_CHARS + 1


def test_samples_come_from_everywhere():
    drawn = count_rows(table(many(10_000, status="change", genres=["Rock"])))
    places = [int(sample.track_id[:6]) for sample in drawn.changes]
    assert min(places) < 2_000
    assert max(places) > 8_000


def test_counts_are_of_what_files_get():
    counted = count_rows(
        table(
            [
                {"track_id": "a", "status": "written", "old_genres": ["Ska"], "genres": ["Ska", "Rock"]},
                {"track_id": "b", "status": "copied", "genres": ["Rock", "Pop"], "confidence": 1.0},
                {"track_id": "c", "status": "skipped", "reason": "changed", "genres": ["Pop"]},
                {"track_id": "d", "status": "unsure", "reason": "low-confidence", "confidence": 0.05},
                {"track_id": "e", "status": "kept", "reason": "has-genre", "old_genres": ["Mine"]},
            ]
        )
    )
    assert counted.genres == {"Pop": 1, "Rock": 2}
    assert counted.statuses == {"copied": 1, "kept": 1, "skipped": 1, "unsure": 1, "written": 1}
    assert counted.reasons == {
        "kept": {"has-genre": 1},
        "skipped": {"changed": 1},
        "unsure": {"low-confidence": 1},
    }
    assert counted.changed_confidences == (*[0] * 19, 1)
    assert counted.unchanged_confidences == (0, 1, *[0] * 18)
    assert {sample.track_id for sample in counted.changes} == {"a", "b"}
    assert counted.summary_line() == "1 copied, 1 kept, 1 skipped, 1 unsure, 1 written; Rock 2, Pop 1"


def test_nothing_is_a_tally_too():
    assert count_rows(table([])) == TaggingStatistics()
    assert TaggingStatistics().summary_line() == ""
    assert TaggingStatistics().files == TaggingStatistics().changed == 0


def test_a_note_stays_short():
    drawn = [{"track_id": str(n), "status": "change", "genres": [f"Genre {n}"]} for n in range(50)]
    assert count_rows(table(drawn)).summary_line() == "50 change; Genre 0 1, Genre 1 1, Genre 10 1"


@pytest.mark.parametrize("status", STATUSES)
def test_only_files_that_get_something_count_for_genres(status):
    counted = count_rows(table([{"track_id": "a", "status": status, "genres": ["Rock"]}]))
    assert counted.genres == ({"Rock": 1} if status in CHANGED_STATUSES else {})
