import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from training.evaluation.metrics import reliability, score
from training.evaluation.ranking import average_precisions, precision_recall
from training.report.score_figures import curve_steps, draw_precision_recall, draw_reliability, most_supported
from training.report.style import DARK, LIGHT

DRAW = np.random.default_rng(0)
TRUTH, PROBABILITY = DRAW.random((200, 11)) < np.linspace(0.5, 0.0, 11), DRAW.random((200, 11))
NAMES = [f"Old-Time / Historic $x$ {number}" for number in range(11)]


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def share_of(png, colour):
    return (np.abs(pixels(png) - np.array(to_rgb(colour))).max(axis=2) < 0.01).mean()


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_calibration_is_drawn_before_and_after(theme):
    before, after = (reliability(TRUTH, each, "multi") for each in (PROBABILITY, PROBABILITY**2))
    drawn = draw_reliability(before, after, theme)
    assert pixels(drawn).shape == (1080, 1080, 3)
    assert share_of(drawn, theme.wrong) > 0.01
    assert share_of(drawn, theme.correct) > 0.01
    alone = draw_reliability(before, before, theme)
    assert share_of(alone, theme.wrong) == 0, "equal curves are drawn once"


def test_a_single_prediction_can_be_drawn():
    found = reliability([[1, 0]], [[1.0, 0.0]], "top")
    assert pixels(draw_reliability(found, found)).std() > 0.02


@pytest.mark.parametrize("genres", [1, 3, 11])
def test_curves_of_any_number_of_genres_can_be_drawn(genres):
    truth, probability = TRUTH[:, :genres], PROBABILITY[:, :genres]
    scores = score(truth, probability, NAMES[:genres], "multi")
    drawn = draw_precision_recall(scores, truth, probability)
    assert share_of(drawn, LIGHT.correct) > 0.003
    assert share_of(drawn, LIGHT.wrong) > 0.0005


def test_the_genres_with_most_tracks_are_shown_and_no_empty_one():
    scores = score(TRUTH, PROBABILITY, NAMES, "multi")
    assert scores.genres[10].support == 0
    supports = [scores.genres[genre].support for genre in most_supported(scores)]
    assert len(supports) == 8
    assert supports == sorted((each.support for each in scores.genres), reverse=True)[:8]
    few = score(TRUTH[:, 9:], PROBABILITY[:, 9:], NAMES[9:], "multi")
    assert most_supported(few) == [0]


def test_the_area_under_the_drawn_curve_is_the_average_precision():
    truth, probability = TRUTH[:, 3], PROBABILITY[:, 3].round(1)
    x, y = curve_steps(*precision_recall(truth, probability))
    area = (np.diff(x) * y[1:]).sum()
    assert area == pytest.approx(average_precisions(truth[:, None], probability[:, None])[0])
