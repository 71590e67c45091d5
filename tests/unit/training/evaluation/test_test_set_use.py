import pyarrow as pa
import pytest

from store.fs.files import join, write_atomic
from store.fs.parquet import to_parquet
from store.model_registry import publish_version
from training.evaluation.test_set_use import earlier_versions, hash_test_set, record_test_use

HEARD = pa.table({"track_id": ["3", "1", "2"], "split": ["test", "validation", "test"]})


def test_a_test_set_is_named_by_its_tracks_in_any_order():
    assert hash_test_set(["3", "2"]) == hash_test_set(["2", "3"])
    assert hash_test_set(["3", "2"]) != hash_test_set(["3", "2", "1"])
    assert hash_test_set(["12", "3"]) != hash_test_set(["1", "23"])
    assert len(hash_test_set(["1"])) == 12


def keep(root, heard):
    return publish_version(root, {"report/held_out_predictions.parquet": to_parquet(heard)}, {})


def test_earlier_versions_are_counted_by_the_test_tracks_that_they_share(tmp_path):
    """A test set that grows by a track a night is never the same set, and yet was looked at every night."""
    root = str(tmp_path)
    first = record_test_use(HEARD, root, "2026-01-01")
    assert first == {
        "test_set": hash_test_set(["2", "3"]), "tracks": 2, "evaluated_at": "2026-01-01", "earlier_versions": [],
    }  # fmt: skip
    same = keep(root, HEARD)
    shrunk = keep(root, pa.table({"track_id": ["3", "2", "1"], "split": ["test", "validation", "test"]}))
    keep(root, pa.table({"track_id": ["2", "3", "9"], "split": ["validation", "validation", "test"]}))
    keep(root, HEARD.slice(0, 0))
    grown = pa.concat_tables([HEARD, pa.table({"track_id": ["4"], "split": ["test"]})])
    use = record_test_use(grown, root, "2026-01-02")
    assert dict(earlier_versions(use)) == {same: 2, shrunk: 1}
    assert use["earlier_versions"][0].keys() == {"version", "tracks"}
    assert use["tracks"] == 3


def test_versions_that_cannot_be_read_are_passed_over(tmp_path):
    root = str(tmp_path)
    publish_version(root, {}, {})  # an older one, which kept nothing
    publish_version(root, {"report/held_out_predictions.parquet": b"PAR1 cut"}, {})
    publish_version(root, {"report/held_out_predictions.parquet": to_parquet(pa.table({"x": [1]}))}, {})
    known = keep(root, HEARD)
    assert earlier_versions(record_test_use(HEARD, root, "2026-01-03")) == [(known, 2)]


def test_older_cards_list_names_of_versions_that_heard_the_whole_set():
    assert earlier_versions({"tracks": 7, "earlier_versions": ["v1"]}) == [("v1", 7)]


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"test_use": 5}', b'{"test_u', b"\xff"])
def test_a_damaged_card_of_another_version_costs_no_training(content, tmp_path):
    root = str(tmp_path)
    write_atomic(join(root, "20200101T000000-damaged", "model.json"), content)
    known = keep(root, HEARD)
    assert earlier_versions(record_test_use(HEARD, root, "2026-01-02")) == [(known, 2)]
