import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import BadInput
from training.evaluation.calibration import Calibration
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_SCHEMA
from training.evaluation.metrics import score
from training.selection.comparison import compare

GENRES = ["Folk", "Jazz", "Rock"]
WORLD = np.random.default_rng(11).integers(3, size=120)


def predict(correct_share: float, seed: int = 0, split: str = "test", **changes) -> pa.Table:
    """Make predictions for 120 tracks by 40 artists, a share of them correct."""
    draw = np.random.default_rng(seed)
    truth = np.eye(3, dtype=np.int8)[WORLD]
    predicted = np.where(draw.random(120) < correct_share, WORLD, (WORLD + 1) % 3)
    columns = {
        "track_id": [f"{number:03d}" for number in range(120)],
        "split": [split] * 120,
        "artist": [f"artist {number // 3}" for number in range(120)],
        "title": [None] * 120,
        "truth": truth.tolist(),
        "probabilities": (0.1 + 0.7 * np.eye(3)[predicted]).tolist(),
    }
    return pa.table({**columns, **changes}).cast(HELD_OUT_PREDICTIONS_SCHEMA)


@given(seed=st.integers(0, 2**32 - 1), target=st.sampled_from(["top", "multi"]), share=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_a_model_gains_nothing_over_itself(seed, target, share):
    rows = predict(share, seed)
    comparison = compare(rows, rows, GENRES, target)
    for gain in (comparison.macro_f1, comparison.accuracy, comparison.log_loss):
        assert (gain.gain, gain.low, gain.high, gain.share_better) == (0, 0, 0, 0)
    assert {each.gain for each in comparison.genres} <= {0.0, None}


def test_a_better_model_gains_by_every_score():
    worse, better = predict(0.5, 1), predict(0.9, 2)
    found = compare(worse, better, GENRES, "top", margin=0.05)
    old, new = (
        score(np.eye(3)[WORLD], rows["probabilities"].to_pylist(), GENRES, "top") for rows in (worse, better)
    )
    assert (found.tracks, found.artists, found.margin) == (120, 40, 0.05)
    assert found.accuracy.gain == pytest.approx(new.accuracy - old.accuracy)
    assert found.macro_f1.gain == pytest.approx(new.macro_f1 - old.macro_f1)
    assert found.log_loss.gain == pytest.approx(old.log_loss - new.log_loss)
    assert (found.log_loss.champion, found.log_loss.challenger) == (old.log_loss, new.log_loss)
    for gain in (found.macro_f1, found.accuracy, found.log_loss):
        assert 0 < gain.low < gain.gain < gain.high
        assert gain.share_better > 0.99
    for each, before, after in zip(found.genres, old.genres, new.genres, strict=True):
        assert each.gain == pytest.approx(after.f1 - before.f1)
        assert each.low < each.gain < each.high
    json.dumps(asdict(found), allow_nan=False)


def test_exchanged_models_have_the_opposite_gain():
    one, other = predict(0.5, 1), predict(0.7, 2)
    forward, backward = compare(one, other, GENRES, "top"), compare(other, one, GENRES, "top")
    for name in ("macro_f1", "accuracy", "log_loss"):
        one_way, other_way = getattr(forward, name), getattr(backward, name)
        assert (one_way.gain, one_way.low, one_way.high) == pytest.approx(
            (-other_way.gain, -other_way.high, -other_way.low)
        )


def test_the_margin_must_be_exceeded():
    one, other = predict(0.6, 1), predict(0.7, 2)
    shares = [
        compare(one, other, GENRES, "top", margin=m).accuracy.share_better for m in (-1.0, 0.0, 0.1, 1.0)
    ]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1.0, 0.0)


def test_pairing_makes_the_interval_narrow():
    """Two models that are wrong on the same tracks but one: the gain is far more certain than either score."""
    one = predict(0.5, 1)
    probabilities = one["probabilities"].to_pylist()
    probabilities[0] = (0.1 + 0.7 * np.eye(3)[WORLD[0]]).tolist()
    other = predict(0.5, 1, probabilities=probabilities)
    found = compare(predict(0.5, 1), other, GENRES, "top").accuracy
    assert found.high - found.low < 0.03


def test_each_model_uses_its_own_calibration():
    rows = predict(0.8)
    strict = Calibration(thresholds=(0.9, 0.9, 0.9))
    found = compare(rows, rows, GENRES, "multi", champion_calibration=strict)
    assert (found.accuracy.champion, found.macro_f1.champion) == (0.0, 0.0)
    assert found.accuracy.challenger > 0.7
    turned = compare(rows, rows, GENRES, "multi", challenger_calibration=strict)
    assert turned.accuracy.gain == -found.accuracy.gain


def test_the_order_of_rows_does_not_matter():
    one, other = predict(0.5, 1), predict(0.9, 2)
    shuffled = other.take(np.random.default_rng(0).permutation(120))
    assert compare(one, shuffled, GENRES, "top") == compare(one, other, GENRES, "top")


def test_validation_tracks_do_not_count():
    one, other = predict(0.5, 1), predict(0.9, 2)
    ids = [f"v{number}" for number in range(120)]
    more = pa.concat_tables([other, predict(0.0, split="validation", track_id=ids)])
    assert compare(one, more, GENRES, "top") == compare(one, other, GENRES, "top")


def test_one_artist_has_gains_without_intervals():
    changes = {"artist": ["Ann"] * 120}
    found = compare(predict(0.5, 1, **changes), predict(0.9, 2, **changes), GENRES, "top")
    assert found.accuracy.gain > 0
    assert (found.accuracy.low, found.accuracy.high, found.accuracy.share_better) == (None, None, None)
    assert found.genres[0].low is None


def test_a_genre_without_test_tracks_has_no_gain():
    found = compare(
        *(predict(0.9, truth=np.eye(3, dtype=np.int8)[WORLD % 2].tolist()) for _ in range(2)), GENRES, "top"
    )
    assert (found.genres[2].support, found.genres[2].gain) == (0, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"track_id": [f"{number:03d}" for number in range(1, 121)]},
            r"same test tracks only: .* 120 \(1 of them alone\), the challenger 120 \(1 alone\)",
        ),
        ({"split": "validation"}, r"the challenger 0 \(0 alone\)"),
        (
            {"truth": np.eye(3, dtype=np.int8)[(WORLD + 1) % 3].tolist()},
            "but not their genres: the catalogue",
        ),
        ({"probabilities": [[0.5, 0.5]] * 120}, r"the challenger's probabilities are \[2\] values .* want 3"),
    ],
)
def test_what_cannot_be_compared_is_bad_input(changes, message):
    with pytest.raises(BadInput, match=message):
        compare(predict(0.5), predict(0.5, **changes), GENRES, "top")
