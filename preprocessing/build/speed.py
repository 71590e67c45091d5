"""How fast this machine makes spectrograms."""

import time

import numpy as np

from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel

EXCERPT_S = 30.0
DECODING_SHARE = 0.65  # of the time from an MP3 to its stored spectrogram: DECISIONS.md


def measure_build_speed(mel: MelSettings, *, seconds: float) -> float:
    """Measure the log-mel transform for some seconds; return the speed of a build on one core, decoding included.

    Units:  seconds of audio per second.
    """
    wave = np.random.default_rng(0).normal(0, 0.1, int(EXCERPT_S * mel.sample_rate_hz)).astype(np.float32)
    log_mel(wave, mel)  # compiles it
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < seconds:
        log_mel(wave, mel)
        calls += 1
    return calls * EXCERPT_S / (time.perf_counter() - started) * (1 - DECODING_SHARE)
