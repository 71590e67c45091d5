import io
import json

import pyarrow as pa
import pytest
from rich.console import Console

from flows.commands.model_comparison import compare_models
from flows.commands.model_versions import list_models, promote_model, show_model
from flows.reporting.model_comparison import read_candidate
from store.errors import BadInput
from store.fs.files import join, write_atomic
from store.fs.parquet import to_parquet


@pytest.fixture
def root(tmp_path):
    """Two versions: one with a model card, one with an empty model.json."""
    root = str(tmp_path)
    test = {"accuracy": 0.75, "accuracy_interval": {"low": 0.5, "high": 0.9}, "macro_f1": 0.7}
    card = {
        "trained": "2026-01-02T03:04:05+00:00",
        "snapshot": "/store/snapshots/00000003.json",
        "parent": f"{root}/20260101-aa",
        "metrics": {"test": test},
    }
    write_atomic(join(root, "20260101-aa", "model.json"), b"{}")
    write_atomic(join(root, "20260102-bb", "model.json"), json.dumps(card).encode())
    write_atomic(join(root, "20260102-bb", "MODEL_CARD.md"), b"# Model\nIt predicts.\n")
    return root


def cells(table):
    return list(zip(*(column.cells for column in table.columns), strict=True))


def test_the_list_marks_the_champion(root):
    old = ("", "20260101-aa", "-", "-", "-", "-", "-")
    new = ("20260102-bb", "2026-01-02 03:04", "75% (50% to 90%)", "0.70", "00000003", "20260101-aa")
    assert cells(list_models(root)) == [old, ("", *new)]
    assert list_models(root).caption == "none is in service"
    assert promote_model(root, "20260102", "by hand") == "20260102-bb is in service"
    assert cells(list_models(root)) == [old, ("*", *new)]
    assert promote_model(root, "20260101", "x") == "20260101-aa is in service in place of 20260102-bb"


def test_a_version_is_shown_by_its_card_and_its_time_in_service(root):
    promote_model(root, "latest", "better")
    *card, moved = show_model(root, "champion")
    assert card == ["# Model", "It predicts."]
    assert moved.startswith("in service from 20")
    assert moved.endswith(": better")
    with pytest.raises(BadInput, match=r"20260101-aa/MODEL_CARD\.md: no such file; restore the version"):
        show_model(root, "20260101-aa")


def test_versions_without_predictions_cannot_be_compared(root):
    identity = {"genres": ["a", "b"], "mel": {}, "training": {}}
    write_atomic(join(root, "20260101-aa", "model.json"), json.dumps(identity).encode())
    with pytest.raises(
        BadInput, match=r"20260101-aa: has no stored predictions .*predictions\.parquet is missing"
    ):
        compare_models(root, "20260101", "20260102")


def test_names_of_versions_are_whole_in_a_narrow_terminal(tmp_path):
    root = str(tmp_path)
    names = ["20261122T220000-aaaaaa", "20261122T230000-bbbbbb"]
    test = {"accuracy": 0.75, "accuracy_interval": {"low": 0.5, "high": 0.9}, "macro_f1": 0.7}
    card = {"trained": "2026-11-22T22:00:00", "snapshot": "/s/00000003.json", "parent": f"{root}/{names[0]}"}
    for name in names:
        content = json.dumps({**card, "metrics": {"test": test}}).encode()
        write_atomic(join(root, name, "model.json"), content)
    printed = io.StringIO()
    Console(file=printed, width=80).print(list_models(root))
    for name in names:
        assert f" {name} " in printed.getvalue()
    assert "…" not in printed.getvalue()
    assert max(map(len, printed.getvalue().splitlines())) <= 80


def test_a_folder_without_versions_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"nothing: holds no model versions; train one .* with --models"):
        list_models(f"{tmp_path}/nothing")


def test_a_damaged_version_is_listed_as_such(root):
    write_atomic(join(root, "20260103-cc", "model.json"), b"[]")
    assert cells(list_models(root))[-1] == ("", "20260103-cc", "damaged", "-", "-", "-", "-")
    with pytest.raises(BadInput, match=r"20260103-cc/model\.json: not readable as JSON of a model"):
        show_model(root, "20260103-cc")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            to_parquet(pa.table({"track_id": ["1"] * 9}))[:-9],
            "this Parquet file is damaged .*; restore it from a backup",
        ),
        (b"", "this Parquet file is damaged"),
        (to_parquet(pa.table({"track_id": ["1"]})), "has no column split, artist, title, truth, prob"),
    ],
)
def test_damaged_predictions_are_reported_in_one_line(root, content, message):
    identity = {"genres": ["a", "b"], "mel": {}, "training": {}}
    write_atomic(join(root, "20260101-aa", "model.json"), json.dumps(identity).encode())
    write_atomic(join(root, "20260101-aa", "report/held_out_predictions.parquet"), content)
    with pytest.raises(BadInput, match=rf"^\S+report/held_out_predictions\.parquet: {message}") as caught:
        read_candidate(join(root, "20260101-aa"))
    assert "\n" not in str(caught.value)
