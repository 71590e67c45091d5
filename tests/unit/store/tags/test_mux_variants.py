"""What a decoder makes of a file is the same before and after an edit of its tags, in every layout of the audio."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from store.errors import BadInput
from store.tags.write import check_taggable, read_genres, write_genres
from tests.support.damaged_files import mutations
from tests.support.mux_variants import SILENT, VARIANTS, MuxFactory, Variant, decode_digests, random_variant

LONG = ["Old-Time / Historic", "N" * 3_000]  # beyond the padding: what follows the tags moves


@pytest.fixture(scope="session")
def mux(tmp_path_factory) -> MuxFactory:
    return MuxFactory(tmp_path_factory.mktemp("encoded"))


def reason_to_refuse(track: Path) -> str | None:
    try:
        check_taggable(track)
    except BadInput as why:
        return str(why)
    return None


def assert_edits_keep_the_audio(track: Path) -> bool:
    """Return whether the file was tagged; if not, it is untouched, and the check without writing raises as well."""
    content, before = track.read_bytes(), decode_digests(track)
    if (reason := reason_to_refuse(track)) is not None:
        with pytest.raises(BadInput, match=re.escape(reason)):
            write_genres(track, LONG)
        assert track.read_bytes() == content
        return False
    for genres in (LONG, ["Folk"], LONG, []):
        write_genres(track, genres)
        assert read_genres(track) == genres
        assert decode_digests(track) == before
    return True


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_tagged_file_decodes_to_the_same_samples(variant: Variant, mux, tmp_path):
    track = tmp_path / f"track.{variant.muxer}"
    mux.write(variant, track)
    assert assert_edits_keep_the_audio(track) != variant.refused


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(20))
def test_random_layouts_decode_to_the_same_samples(seed, mux, need, tmp_path):
    need(shutil.which("ffmpeg"), "ffmpeg is not installed")
    random = np.random.default_rng(seed)
    tagged = []
    while len(tagged) < 100:
        variant, track = random_variant(random), tmp_path / f"{len(tagged)}.bin"
        if mux.write_by_command(variant, track) and SILENT not in decode_digests(track):
            tagged.append(assert_edits_keep_the_audio(track))
            track.unlink()
    assert tagged.count(True) > 50


@pytest.mark.parametrize(
    "count", [70, pytest.param(2_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)])]
)
def test_damaged_files_decode_as_before_or_are_left_alone(count, mux, tmp_path):
    files = [tmp_path / f"{number}.{variant.muxer}" for number, variant in enumerate(VARIANTS)]
    for variant, path in zip(VARIANTS, files, strict=True):
        mux.write(variant, path)
    written = 0
    for kind, path, content in mutations(files, count, seed=count):
        track = tmp_path / f"damaged{path.suffix}"
        track.write_bytes(content)
        before = decode_digests(track)
        try:
            write_genres(track, LONG)
        except BadInput:
            assert track.read_bytes() == content
        else:
            assert decode_digests(track) == before, f"{kind}, {path.name}"
            written += 1
    assert written > count / 5
