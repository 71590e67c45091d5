import numpy as np
import pyarrow as pa
import pytest

from training.studies.paired_test import mean_log_loss, paired_test


def predictions(true_probability_T, artists):
    rows = [
        {"track_id": str(row), "artist": artist, "truth": [1, 0], "probabilities": [value, 1 - value]}
        for row, (value, artist) in enumerate(zip(true_probability_T, artists, strict=True))
    ]
    return pa.Table.from_pylist(rows)


def test_the_log_loss_of_a_track_is_that_of_its_true_genre_and_a_mean_over_seeds():
    twice = pa.concat_tables([predictions([0.5], ["a"]), predictions([0.25], ["a"])])
    assert mean_log_loss(twice)["0"] == ("a", pytest.approx(1.5 * np.log(2)))


def test_a_model_that_is_surer_of_every_track_differs_in_log_loss_and_not_in_accuracy():
    artists = [f"artist {row}" for row in range(8)]
    one, other = predictions([0.9] * 8, artists), predictions([0.6] * 8, artists)
    assert paired_test(one, other).difference == 0
    loss = paired_test(one, other, measure=mean_log_loss)
    assert loss.difference == pytest.approx(np.log(0.6 / 0.9), rel=1e-6)
    assert loss.differs
