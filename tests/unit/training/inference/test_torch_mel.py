import numpy as np
import pytest
import torch

from preprocessing.decode import decode
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import FLOOR_DB, log_mel
from tests.support.audio_formats import DEMO_TRACK
from training.inference.torch_mel import TorchMel

SETTINGS = [
    MelSettings(),
    MelSettings(sample_rate_hz=16_000, window=512, hop=256, bands=96, low_hz=50.0, high_hz=7_000.0),
]


def rounding_db(settings):
    """Return the rounding of a band 60 dB below full scale, by two float32 implementations.

    An FFT of n samples rounds by about log2(n) eps of the frame's amplitude (Higham, 2002, ch. 24), which is at
    most 1 and 10**3 times that of the band; d dB = 20 / ln(10) times the relative error of the amplitude.
    """
    return 20 / np.log(10) * 2 * np.log2(settings.window) * np.finfo(np.float32).eps * 10**3


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("song", ["200001.mp3", "200017.mp3", "200033.mp3"])
def test_it_equals_the_spectrogram_of_training(song, settings):
    wave_S = decode(str(DEMO_TRACK.parent / song), sample_rate_hz=settings.sample_rate_hz, duration_s=10.0)
    wanted_FM = log_mel(wave_S, settings)
    found_FM = TorchMel(settings)(torch.from_numpy(wave_S)[None])[0].numpy()
    assert found_FM.shape == wanted_FM.shape
    loud = wanted_FM > -60
    assert loud.sum() > 10_000
    np.testing.assert_allclose(found_FM[loud], wanted_FM[loud], atol=rounding_db(settings))


def test_silence_is_the_floor():
    assert (TorchMel(MelSettings())(torch.zeros(1, 4_096)) == FLOOR_DB).all()
