import json

import pytest

from store.errors import BadInput
from store.files import join, read_bytes, write_whole
from store.models import champion, find_version, list_versions, promote, publish_version, read_card


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
    write_whole(str(tmp_path / "half" / "weights.safetensors"), b"")
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
    assert find_version(root, "champion") == join(root, one)
    assert sorted(list_versions(root)) == sorted([one, other])


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    root = str(tmp_path)
    for which in ("champion", "latest"):
        with pytest.raises(BadInput, match=f"holds no {which} model; train one with `spectrogram-one train`"):
            find_version(root, which)
    with pytest.raises(BadInput, match="no model version"):
        promote(root, "20200101T000000-abcdef")
    write_whole(join(root, "broken", "model.json"), json.dumps({}).encode()[:1])
    with pytest.raises(BadInput, match="not readable as JSON"):
        read_card(join(root, "broken"))


def test_a_card_never_holds_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        publish_version(str(tmp_path), {}, {"loss": float("nan")})
