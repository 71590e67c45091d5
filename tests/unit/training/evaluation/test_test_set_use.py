import pyarrow as pa
import pytest

from store.fs.files import join, write_atomic
from store.fs.parquet import to_parquet
from store.model_registry import publish_version
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_FILE
from training.evaluation.test_set_use import earlier_versions, hash_test_set, record_test_use

PREDICTIONS = pa.table({"track_id": ["3", "1", "2"], "split": ["test", "validation", "test"]})


def test_the_hash_of_a_test_set_ignores_the_order_of_its_tracks():
    assert hash_test_set(["3", "2"]) == hash_test_set(["2", "3"])
    assert hash_test_set(["3", "2"]) != hash_test_set(["3", "2", "1"])
    assert hash_test_set(["12", "3"]) != hash_test_set(["1", "23"])
    assert len(hash_test_set(["1"])) == 12


def publish(root, predictions):
    return publish_version(root, {HELD_OUT_PREDICTIONS_FILE: to_parquet(predictions)}, {})


def test_earlier_versions_are_counted_by_the_test_tracks_that_they_share(tmp_path):
    """A test set that grows by a track a night is never the same set, and yet was used every night."""
    root = str(tmp_path)
    first = record_test_use(PREDICTIONS, root, "2026-01-01")
    assert first == {
        "test_set": hash_test_set(["2", "3"]), "tracks": 2, "evaluated_at": "2026-01-01", "earlier_versions": [],
    }  # fmt: skip
    same = publish(root, PREDICTIONS)
    shrunk = publish(root, pa.table({"track_id": ["3", "2", "1"], "split": ["test", "validation", "test"]}))
    publish(root, pa.table({"track_id": ["2", "3", "9"], "split": ["validation", "validation", "test"]}))
    publish(root, PREDICTIONS.slice(0, 0))
    grown = pa.concat_tables([PREDICTIONS, pa.table({"track_id": ["4"], "split": ["test"]})])
    use = record_test_use(grown, root, "2026-01-02")
    assert dict(earlier_versions(use)) == {same: 2, shrunk: 1}
    assert use["earlier_versions"][0].keys() == {"version", "tracks"}
    assert use["tracks"] == 3


def test_versions_that_cannot_be_read_are_skipped(tmp_path):
    root = str(tmp_path)
    publish_version(root, {}, {})  # without predictions
    publish_version(root, {HELD_OUT_PREDICTIONS_FILE: b"PAR1 cut"}, {})
    publish_version(root, {HELD_OUT_PREDICTIONS_FILE: to_parquet(pa.table({"x": [1]}))}, {})
    known = publish(root, PREDICTIONS)
    assert earlier_versions(record_test_use(PREDICTIONS, root, "2026-01-03")) == [(known, 2)]


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"test_use": 5}', b'{"test_u', b"\xff"])
def test_a_damaged_card_of_another_version_does_not_fail_a_training(content, tmp_path):
    root = str(tmp_path)
    write_atomic(join(root, "20200101T000000-damaged", "model.json"), content)
    known = publish(root, PREDICTIONS)
    assert earlier_versions(record_test_use(PREDICTIONS, root, "2026-01-02")) == [(known, 2)]
