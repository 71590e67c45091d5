"""Cached predictions follow what became of the files."""

import pytest

from store.tagging.inference_cache import read_inference, update_inference, write_inference

CACHED = {"track_id": "a.mp3", "signature": "1-2", "status": "predicted", "old_genres": []}


@pytest.mark.parametrize("status", ["written", "kept", "restored", "restored-tags", "as-it-was"])
def test_the_genres_that_a_file_turned_out_to_have_are_cached(tmp_path, status):
    """An edit within the padding that keeps the time keeps the signature: so the row may be out of date."""
    url = f"{tmp_path}/0.parquet"
    write_inference(url, [CACHED])
    result = {"track_id": "a.mp3", "status": status, "reason": None, "genres": ["Jazz"], "custom_tags": {}}
    update_inference(url, [result | {"old_signature": "1-2", "signature": "1-2"}])
    assert read_inference(url)[0]["old_genres"] == ["Jazz"]
    update_inference(url, [result | {"genres": ["Pop"], "old_signature": "1-3", "signature": "1-4"}])
    assert read_inference(url)[0]["old_genres"] == ["Jazz"], "of another content"
