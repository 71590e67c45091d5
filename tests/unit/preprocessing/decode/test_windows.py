from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from preprocessing.decode.settings import WindowSettings
from preprocessing.decode.windows import (
    RESAMPLER_MARGIN_S,
    FrameRange,
    PeakMeter,
    decode_range_for,
    place_windows,
    slice_wave,
)
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel

MEL = MelSettings()
SMALL = MelSettings(sample_rate_hz=8_000, window=256, hop=100, bands=16)
RATES_HZ = (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000)


def in_blocks(wave_S, sizes):
    first = 0
    for size in sizes:
        yield wave_S[first : first + size]
        first += size
    yield wave_S[first:]


@given(
    frames=st.integers(1, 200_000),
    count=st.integers(1, 20),
    length_s=st.floats(0.5, 30.0),
    whole_track=st.booleans(),
)
def test_windows_lie_apart_within_the_track_at_equal_distances(frames, count, length_s, whole_track):
    windows = WindowSettings(count=count, length_s=length_s, whole_track=whole_track)
    spans = place_windows(frames, windows, MEL)
    if windows.covers_track(frames, MEL):
        assert spans == [FrameRange(0, frames)]
        return
    assert not whole_track
    assert [span.frames for span in spans] == [MEL.count_frames(length_s)] * count
    ends = [(span.start, span.start + span.frames) for span in spans]
    gaps = [after[0] - before[1] for before, after in pairwise(ends)]
    assert ends[0][0] >= 0
    assert ends[-1][1] <= frames
    assert all(gap >= 0 for gap in gaps)
    edges = (2 * ends[0][0], 2 * (frames - ends[-1][1]))
    assert max(*gaps, *edges, 0) - min([*gaps, *edges]) <= 4  # rounding: halves of the gaps at both edges


def test_three_windows_of_ten_seconds_pass_over_the_start_and_the_end_of_a_song():
    starts_s = [
        span.start * MEL.hop / MEL.sample_rate_hz
        for span in place_windows(MEL.count_frames(240.0), WindowSettings(), MEL)
    ]
    assert starts_s == pytest.approx([35, 115, 195], abs=0.05)


def test_a_track_that_is_no_longer_than_its_windows_is_decoded_whole():
    assert place_windows(MEL.count_frames(30.0), WindowSettings(), MEL) == [
        FrameRange(0, MEL.count_frames(30.0))
    ]
    assert len(place_windows(MEL.count_frames(30.1), WindowSettings(), MEL)) == 3


@given(rate_hz=st.sampled_from(RATES_HZ), start=st.integers(0, 10_000), frames=st.integers(1, 500))
def test_what_is_decoded_starts_where_both_rates_have_a_sample(rate_hz, start, frames):
    span = FrameRange(start, frames)
    stretch = decode_range_for(span, rate_hz, MEL)
    for rate in (rate_hz, MEL.sample_rate_hz):
        # Seconds are float64: an eps of them is much less than a sample.
        assert stretch.start_s * rate == pytest.approx(round(stretch.start_s * rate), rel=1e-12, abs=1e-12)
    first, samples = span.sample_range(MEL)
    assert round(stretch.start_s * MEL.sample_rate_hz) + stretch.skip_samples == first
    assert stretch.keep_samples == samples
    assert stretch.skip_samples >= min(first, RESAMPLER_MARGIN_S * MEL.sample_rate_hz - 1)
    assert round(stretch.duration_s * MEL.sample_rate_hz) >= stretch.skip_samples + stretch.keep_samples


@given(
    sizes=st.lists(st.integers(0, 700), max_size=10),
    skipped=st.integers(0, 1_200),
    kept=st.integers(1, 1_200),
)
def test_what_is_cut_is_the_same_however_the_waveform_comes(sizes, skipped, kept):
    wave_S = np.arange(1_500, dtype=np.float32)
    parts = list(slice_wave(in_blocks(wave_S, sizes), skipped, kept))
    np.testing.assert_array_equal(np.concatenate([wave_S[:0], *parts]), wave_S[skipped : skipped + kept])


@given(
    sizes=st.lists(st.integers(0, 2_000), max_size=8),
    start=st.integers(0, 45),
    frames=st.integers(1, 10),
    at=st.integers(0, 5_049),
)
def test_the_loudest_sample_of_a_window_is_known_to_a_hop(sizes, start, frames, at):
    wave_S = np.zeros(5_050, np.float32)
    wave_S[at] = -0.5
    meter = PeakMeter(SMALL)
    assert sum(part.size for part in meter.measure(in_blocks(wave_S, sizes))) == wave_S.size
    span = FrameRange(start, frames)
    first, samples = span.sample_range(SMALL)
    if first <= at < first + samples:
        assert meter.peak(span) == 0.5
    elif not first - SMALL.hop < at < first + samples + SMALL.hop:
        assert meter.peak(span) == 0.0


def test_the_samples_of_a_span_give_its_frames():
    first, samples = FrameRange(7, 5).sample_range(SMALL)
    wave_S = np.random.default_rng(0).normal(0, 0.1, 4_000).astype(np.float32)
    mel_FM = log_mel(wave_S[first : first + samples], SMALL)
    np.testing.assert_array_equal(mel_FM, log_mel(wave_S, SMALL)[7:12])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "greater than or equal to 1"),
        ({"length_s": 0.1}, "greater than or equal to 0.5"),
        (
            {"count": 100, "length_s": 10},
            "--count 100 windows of --length-s 10 are more than ten minutes; take fewer",
        ),
        ({"windows": 3}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        WindowSettings(**settings)


def test_every_field_is_described():
    assert all(field.description for field in WindowSettings.model_fields.values())
