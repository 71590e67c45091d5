import json

import pytest

from flows.model_versions import compare_models, list_models, promote_model, show_model
from store.errors import BadInput
from store.files import join, write_whole


@pytest.fixture
def root(tmp_path):
    """Two versions: one of today with a model card, one that tells little."""
    root = str(tmp_path)
    test = {"accuracy": 0.75, "accuracy_interval": {"low": 0.5, "high": 0.9}, "macro_f1": 0.7}
    card = {
        "trained": "2026-01-02T03:04:05+00:00",
        "snapshot": "/store/snapshots/00000003.json",
        "parent": f"{root}/20260101-aa",
        "metrics": {"test": test},
    }
    write_whole(join(root, "20260101-aa", "model.json"), b"{}")
    write_whole(join(root, "20260102-bb", "model.json"), json.dumps(card).encode())
    write_whole(join(root, "20260102-bb", "MODEL_CARD.md"), b"# Model\nIt listens.\n")
    return root


def cells(table):
    return list(zip(*(column.cells for column in table.columns), strict=True))


def test_the_list_marks_what_is_in_service_and_older_versions_have_gaps(root):
    old = ("", "20260101-aa", "-", "-", "-", "-", "-")
    new = ("20260102-bb", "2026-01-02 03:04", "75% (50% to 90%)", "0.70", "00000003", "20260101-aa")
    assert cells(list_models(root)) == [old, ("", *new)]
    assert list_models(root).caption == "none is in service"
    assert promote_model(root, "20260102", "by hand") == "20260102-bb is in service"
    assert cells(list_models(root)) == [old, ("*", *new)]
    assert promote_model(root, "20260101", "x") == "20260101-aa is in service in place of 20260102-bb"


def test_a_version_is_told_of_by_its_card_and_its_time_in_service(root):
    promote_model(root, "latest", "better")
    *card, moved = show_model(root, "champion")
    assert card == ["# Model", "It listens."]
    assert moved.startswith("in service from 20")
    assert moved.endswith(": better")
    assert "accuracy: -" in show_model(root, "20260101-aa")


def test_what_was_heard_must_have_been_kept(root):
    identity = {"genres": ["a", "b"], "mel": {}, "training": {}}
    write_whole(join(root, "20260101-aa", "model.json"), json.dumps(identity).encode())
    with pytest.raises(
        BadInput, match=r"20260101-aa: did not keep what it heard .*predictions\.parquet is missing"
    ):
        compare_models(root, "20260101", "20260102")
