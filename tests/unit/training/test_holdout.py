import pyarrow as pa
import pytest

from store.files import join, write_whole
from store.models import publish_version
from training.holdout import name_test_set, record_test_use

HEARD = pa.table({"track_id": ["3", "1", "2"], "split": ["test", "validation", "test"]})


def test_a_test_set_is_named_by_its_tracks_in_any_order():
    assert name_test_set(["3", "2"]) == name_test_set(["2", "3"])
    assert name_test_set(["3", "2"]) != name_test_set(["3", "2", "1"])
    assert name_test_set(["12", "3"]) != name_test_set(["1", "23"])
    assert len(name_test_set(["1"])) == 12


def test_versions_scored_on_the_same_tracks_before_are_named(tmp_path):
    root = str(tmp_path)
    first = record_test_use(HEARD, root, "2026-01-01")
    assert first == {
        "test_set": name_test_set(["2", "3"]), "tracks": 2, "heard_at": "2026-01-01", "versions_before": [],
    }  # fmt: skip
    known = [publish_version(root, {}, {"test_use": first}) for _ in range(2)]
    other = HEARD.set_column(0, "track_id", pa.array(["4", "1", "2"]))
    publish_version(root, {}, {"test_use": record_test_use(other, root, "2026-01-02")})
    publish_version(root, {}, {})  # an older card, which tells nothing
    assert sorted(record_test_use(HEARD, root, "2026-01-03")["versions_before"]) == sorted(known)
    assert record_test_use(other, root, "2026-01-03")["versions_before"] != []


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"test_use": 5}', b'{"test_u', b"\xff"])
def test_a_damaged_card_of_another_version_costs_no_training(content, tmp_path):
    root = str(tmp_path)
    used = record_test_use(HEARD, root, "2026-01-01")
    write_whole(join(root, "20200101T000000-damaged", "model.json"), content)
    known = publish_version(root, {}, {"test_use": used})
    assert record_test_use(HEARD, root, "2026-01-02")["versions_before"] == [known]
