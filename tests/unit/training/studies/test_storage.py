"""What storage costs a spectrogram."""

import numpy as np
import pytest

from training.studies.storage import PICTURE_RANGE_DB, decode_mel, encode_mel, measure_storage


@pytest.fixture(scope="module")
def mel():
    """A smooth spectrogram of 90 dB: 10 dB of it do not fit into a picture."""
    frames, bands = np.arange(400)[:, None], np.arange(64)[None]
    return (-45 + 45 * np.sin(frames / 60) * np.cos(bands / 20)).astype(np.float32)


def test_a_grey_picture_is_within_half_a_level_where_it_is_not_clipped(mel):
    read = decode_mel(encode_mel(mel, "png-grey"), mel.shape, "png-grey") + mel.max()
    within = mel >= mel.max() - PICTURE_RANGE_DB
    assert 0 < within.mean() < 1
    level_db = PICTURE_RANGE_DB / 255
    # Half a level, and the rounding of float32 sums of a hundred decibels.
    np.testing.assert_allclose(read[within], mel[within], rtol=0, atol=level_db / 2 + 1e-4)
    np.testing.assert_allclose(read[~within], mel.max() - PICTURE_RANGE_DB, atol=level_db)


def test_a_coloured_figure_keeps_the_shape_and_the_picture(mel):
    read = decode_mel(encode_mel(mel, "png-colour"), mel.shape, "png-colour")
    assert read.shape == mel.shape
    assert np.corrcoef(read.ravel(), mel.ravel())[0, 1] > 0.99


def test_costs_are_errors_and_bytes_of_an_hour(mel):
    costs = {
        form: measure_storage([mel], form, frames_per_s=40.0) for form in ("float32", "float16", "uint8")
    }
    assert costs["float32"].rms_db == 0
    assert costs["float32"].bytes_per_hour == pytest.approx(40 * 3600 * 64 * 4)
    assert costs["float16"].max_db <= np.abs(mel).max() * 2**-11
    assert 0 < costs["uint8"].max_db <= 140 / 255 / 2 + 1e-4
