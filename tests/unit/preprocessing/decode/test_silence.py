import io
import itertools

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.decode import decode
from preprocessing.decode.settings import ExcerptSettings
from preprocessing.decode.silence import KEPT_S, SilenceFilter
from preprocessing.decode.spectrogram import spool_mel
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import FLOOR_DB, log_mel

MEL = MelSettings()
KEPT = round(KEPT_S * MEL.sample_rate_hz / MEL.hop)


@given(
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 4 * KEPT)), min_size=1, max_size=8),
    cuts=st.sets(st.integers(1, 8 * 4 * KEPT), max_size=6),
)
def test_of_each_silent_run_the_start_and_the_end_are_kept_however_it_is_cut_into_blocks(runs, cuts):
    silent_F = np.concatenate([np.full(frames, silent) for silent, frames in runs])
    mel_FM = np.where(silent_F, FLOOR_DB, -20)[:, None].repeat(MEL.bands, axis=1).astype(np.float32)
    mel_FM[:, 0] += np.arange(len(mel_FM)) * 1e-4  # each frame differs, and none leaves the floor
    wanted = np.ones(len(mel_FM), bool)
    edges = [0, *(np.flatnonzero(np.diff(silent_F)) + 1), len(silent_F)]
    for start, stop in itertools.pairwise(edges):
        if silent_F[start]:
            wanted[start + KEPT : max(stop - KEPT, start + KEPT)] = False
    silence = SilenceFilter(MEL)
    kept_FM = np.concatenate(
        list(silence.filter(iter(np.split(mel_FM, sorted(it for it in cuts if it < len(mel_FM))))))
    )
    np.testing.assert_array_equal(kept_FM, mel_FM[wanted])
    assert silence.dropped_frames == len(mel_FM) - len(kept_FM)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0)])
def test_a_long_silence_is_not_stored(order, tmp_path):
    music_S = np.random.default_rng(3).uniform(-0.3, 0.3, 3 * MEL.sample_rate_hz)
    path = tmp_path / "it.flac"
    soundfile.write(
        path,
        np.concatenate([(music_S, np.zeros(20 * MEL.sample_rate_hz))[it] for it in order]),
        MEL.sample_rate_hz,
    )
    spool = io.BytesIO()
    found = spool_mel(path, spool, mel=MEL, excerpt=ExcerptSettings(), max_duration_s=1e5)
    whole_FM = log_mel(decode(str(path), sample_rate_hz=MEL.sample_rate_hz), MEL)
    stored_FM = np.frombuffer(spool.getvalue(), np.float32).reshape(found.frames, MEL.bands)
    longest, run = 0, 0
    for is_silent in stored_FM.max(axis=1) <= FLOOR_DB + 1:
        run = run + 1 if is_silent else 0
        longest = max(longest, run)
    assert longest <= 2 * KEPT
    assert found.frames + round(found.silence_s * MEL.sample_rate_hz / MEL.hop) == len(whole_FM)
    assert found.silence_s == pytest.approx(19.0, abs=0.2)
    assert found.decoded_s == pytest.approx(20 + 3 * order.count(0))
