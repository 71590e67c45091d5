import numpy as np

from training.report.interpretation.saliency_figures import DIMMED, shade


def test_the_salient_part_is_bright_and_the_rest_is_dimmed():
    mel_FM = np.full((4, 4), -30.0, np.float32)
    mel_FM[0, 0] = 10.0
    saliency_FM = np.zeros((4, 4), np.float32)
    saliency_FM[0, 0] = 1.0
    level_FM, brightness_FM = shade(mel_FM, saliency_FM)
    assert brightness_FM[0, 0] == 1
    assert (brightness_FM[1:] == DIMMED).all()
    assert level_FM[0, 0] == level_FM.max() == 1
    assert (shade(mel_FM, None)[1] == 1).all()
