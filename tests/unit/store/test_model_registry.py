import json
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import BadInput, CommitConflict
from store.fs.files import join, read_bytes, write_atomic
from store.model_registry import (
    champion,
    list_versions,
    promote,
    promotion_history,
    publish_version,
    read_card,
    read_cards,
    resolve_version,
    rollback,
)


def add(root, content=b"weights"):
    return publish_version(
        root, {"weights.safetensors": content, "report/report.html": b"<p>"}, {"genres": ["a"]}
    )


def test_a_version_holds_its_files_and_its_card(tmp_path):
    root = str(tmp_path)
    version = add(root)
    assert list_versions(root) == [version]
    assert read_card(join(root, version)) == {"genres": ["a"], "version": version}
    assert read_bytes(join(root, version, "report", "report.html")) == b"<p>"


def test_a_folder_without_its_card_is_no_version(tmp_path):
    write_atomic(str(tmp_path / "half" / "weights.safetensors"), b"")
    assert list_versions(str(tmp_path)) == []
    with pytest.raises(BadInput, match=r"no model version \(model.json is missing\)"):
        read_card(str(tmp_path / "half"))


def test_promotion_moves_the_pointer_and_nothing_else(tmp_path):
    root = str(tmp_path)
    one, other = add(root), add(root)
    assert champion(root) is None
    promote(root, one)
    promote(root, other)
    assert champion(root) == other
    promote(root, one)
    assert resolve_version(root, "champion") == join(root, one)
    assert sorted(list_versions(root)) == sorted([one, other])


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    root = str(tmp_path)
    for which in ("champion", "latest"):
        with pytest.raises(BadInput, match=f"holds no {which} model; train one with `spectrogram-one train`"):
            resolve_version(root, which)
    with pytest.raises(BadInput, match="no model version"):
        promote(root, "20200101T000000-abcdef")
    write_atomic(join(root, "broken", "model.json"), json.dumps({}).encode()[:1])
    with pytest.raises(BadInput, match="not readable as JSON"):
        read_card(join(root, "broken"))


def test_a_card_never_holds_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        publish_version(str(tmp_path), {}, {"loss": float("nan")})


def test_a_rollback_restores_the_champion_before_and_records_why(tmp_path):
    root = str(tmp_path)
    one, other = add(root), add(root)
    promote(root, one, "the first")
    promote(root, other, "better by 5 points")
    assert rollback(root) == champion(root) == one
    moves = [(move.version, move.reason, move.is_rollback) for move in promotion_history(root)]
    assert moves == [
        (one, "the first", False),
        (other, "better by 5 points", False),
        (one, f"rolled back from {other}", True),
    ]
    with pytest.raises(BadInput, match=rf"no champion to go back to \({one} is the first\); choose one"):
        rollback(root)
    assert champion(root) == one


@given(moves=st.lists(st.sampled_from("ABC<"), max_size=12))
def test_rollbacks_lead_back_along_the_promotions_and_never_back_and_forth(moves):
    root = f"memory://{uuid4().hex}/models"
    for name in "ABC":
        write_atomic(join(root, name, "model.json"), b"{}")
    line: list[str] = []
    for move in moves:
        if move != "<":
            promote(root, move)
            line += [move] if line[-1:] != [move] else []
        elif len(line) > 1:
            line.pop()
            assert rollback(root) == line[-1]
        else:
            with pytest.raises(BadInput, match="no champion to go back to"):
                rollback(root)
        assert champion(root) == line[-1] if line else champion(root) is None
    assert [move.version for move in promotion_history(root)][-1:] == line[-1:]


def test_the_champion_promoted_again_does_not_come_before_itself(tmp_path):
    root = str(tmp_path)
    one, other = add(root), add(root)
    for version in (one, other, other):
        promote(root, version)
    assert [move.version for move in promotion_history(root)] == [one, other]
    assert rollback(root) == one


def test_a_champion_whose_folder_is_gone_is_not_gone_back_to(tmp_path):
    root = str(tmp_path)
    one, other = add(root), add(root)
    promote(root, one)
    promote(root, other)
    (tmp_path / one / "model.json").unlink()
    with pytest.raises(BadInput, match=f"the previous champion, {one}, is missing; choose another"):
        rollback(root)
    assert champion(root) == other


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'{"version": "a"}',
        b'{"history": 5}',
        b'{"history": []}',
        b'{"history": ["a"]}',
        b'{"history": [{"version": 5, "at": "x"}]}',
        b'{"history": [{"version": "a", "at": "x", "is_rollback": true}]}',
        b'{"history": [{"version": "a", "at": "x"}, {"version": "b", "at": "x"},'
        b' {"version": "b", "at": "x", "is_rollback": true}]}',
        b'{"history": [{"vers',
        b"\xff\xfe",
    ],
)
def test_a_damaged_champion_is_reported_in_one_line_and_not_overwritten(content, tmp_path):
    root = str(tmp_path)
    version = add(root)
    write_atomic(join(root, "champion.json"), content)
    for ask in (champion, promotion_history, rollback, lambda it: promote(it, version)):
        with pytest.raises(BadInput, match=r"champion\.json: names no champion that can be read .*remove it"):
            ask(root)
    assert read_bytes(join(root, "champion.json")) == content


def test_a_version_is_found_by_the_beginning_of_its_name_if_only_one_begins_so(tmp_path):
    root = str(tmp_path)
    for name in ("20260101T0-a", "20260102T0-b", "20260102T0-bc"):
        write_atomic(join(root, name, "model.json"), b"{}")
    assert resolve_version(root, "20260101") == join(root, "20260101T0-a")
    assert resolve_version(root, "20260102T0-b") == join(root, "20260102T0-b"), "a whole name is no beginning"
    with pytest.raises(
        BadInput, match="2 versions begin with 20260102: 20260102T0-b, 20260102T0-bc; type more"
    ):
        resolve_version(root, "20260102")
    with pytest.raises(BadInput, match="no model version"):
        resolve_version(root, "2027")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'"a"', b"5", b'{"genr', b"\xff", b"[" * 100_000])
def test_a_damaged_card_is_reported_when_asked_for_and_hides_no_other(content, tmp_path):
    root = str(tmp_path)
    version = add(root)
    write_atomic(join(root, "0-damaged", "model.json"), content)
    message = r"0-damaged/model\.json: not readable as JSON of a model .*restore it from a copy, or remove the folder"
    for ask in (lambda: read_card(join(root, "0-damaged")), lambda: promote(root, "0-damaged")):
        with pytest.raises(BadInput, match=message):
            ask()
    assert dict(read_cards(root)) == {"0-damaged": None, version: {"genres": ["a"], "version": version}}
    assert champion(root) is None


def test_what_was_compared_with_one_champion_does_not_replace_another(tmp_path):
    root = str(tmp_path)
    one, other, new = add(root), add(root), add(root)
    with pytest.raises(CommitConflict, match=f"champion.json: no version is in service, no longer {one}"):
        promote(root, new, expected=one)
    promote(root, one, expected=None)
    promote(root, other)
    for expected in (one, None):
        message = f"champion.json: {other} is in service, no longer {expected or 'none'}, which {new} was to replace"
        with pytest.raises(CommitConflict, match=message):
            promote(root, new, expected=expected)
    assert champion(root) == other
    promote(root, new, expected=other)
    promote(root, new, expected=one)  # it is where it was to be
    assert champion(root) == new


def test_a_url_of_no_kind_is_not_taken_for_a_damaged_champion():
    with pytest.raises(
        BadInput, match=r"^s3x://foo/champion\.json: Protocol not known: s3x; wanted a local path"
    ):
        champion("s3x://foo")
