"""Whatever is wrong with a file, it ends as a spectrogram or as a reason."""

from pathlib import Path

import numpy as np
import pytest

from preprocessing.decode.sandbox import Sandbox
from preprocessing.decode.settings import ExcerptSettings, LimitSettings
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from tests.support.damaged_files import DAMAGE_KINDS, mutations, real_files

FOLDER = Path("../shared/data/hostile")


@pytest.fixture(scope="module")
def sandbox():
    sandbox = Sandbox(LimitSettings())
    yield sandbox
    sandbox.close()


def outcome(sandbox, path):
    """Return how decoding ended; check that the spectrogram, if there is one, can be trained on."""
    try:
        spooled, pieces = sandbox.decode_mel(path, MelSettings(), ExcerptSettings())
    except BadAudio as error:
        return error.reason
    mel_FM = np.concatenate(list(pieces))
    assert mel_FM.shape == (spooled.frames, spooled.bands)
    assert np.isfinite(mel_FM).all()
    assert mel_FM.min() >= -100
    assert mel_FM.max() <= 140
    return "ok"


@pytest.mark.parametrize("count", [40, pytest.param(1_000, marks=pytest.mark.soak)])
def test_damaged_files_are_each_a_spectrogram_or_a_reason(count, sandbox, tmp_path):
    files = real_files(tmp_path)
    ended = []
    for kind, path, data in mutations(files, count, seed=3):
        assert kind in DAMAGE_KINDS
        damaged = path.with_stem("damaged")
        damaged.write_bytes(data)
        ended.append(outcome(sandbox, damaged))
    assert ended.count("ok") > count / 2, "most damage is slight, and skipped"
    assert {it for it in ended if it.startswith("decoder-")} == set()
    assert outcome(sandbox, files[0]) == "ok"


def test_files_made_to_break_readers_are_each_a_spectrogram_or_a_reason(sandbox, need):
    need(FOLDER.is_dir(), f"{FOLDER} is not here: odd and broken files that other projects collected")
    files = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    assert len(files) == 268
    ended = [outcome(sandbox, path) for path in files]
    assert ended.count("ok") > 70, "the others have no audio, or less than a window of it"
