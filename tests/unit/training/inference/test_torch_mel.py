import numpy as np
import pytest
import torch

from preprocessing.decode import decode
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import FLOOR_DB, log_mel
from tests.support.formats import DEMO_TRACK
from training.inference.torch_mel import TorchMel

SETTINGS = [
    MelSettings(),
    MelSettings(sample_rate_hz=16_000, window=512, hop=256, bands=96, low_hz=50.0, high_hz=7_000.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("song", ["200001.mp3", "200017.mp3", "200033.mp3"])
def test_it_is_the_spectrogram_of_training(song, settings):
    wave_S = decode(str(DEMO_TRACK.parent / song), sample_rate_hz=settings.sample_rate_hz, duration_s=10.0)
    wanted_FM = log_mel(wave_S, settings)
    found_FM = TorchMel(settings)(torch.from_numpy(wave_S)[None])[0].numpy()
    assert found_FM.shape == wanted_FM.shape
    heard = wanted_FM > -60
    assert heard.sum() > 10_000
    assert np.abs(found_FM - wanted_FM)[heard].max() < 0.01


def test_silence_is_the_floor():
    assert (TorchMel(MelSettings())(torch.zeros(1, 4_096)) == FLOOR_DB).all()
