"""How far two float32 computations of the same thing may differ, on any CPU."""

import math

import numpy as np

EPSILON = float(np.finfo(np.float32).eps)
RMS_BELOW_PEAK_DB = 20.0  # of the spectrum of music, at least


def level_tolerance_db(window: int, *, below_peak_db: float, error_of_peak: bool = False) -> float:
    """Return how far a level may be off, in a cell so far below the peak of the spectrum.

    Source: an FFT errs by about eps log2(window) of the spectrum's rms (Higham, Accuracy and Stability of
        Numerical Algorithms, 24.1); decoding and resampling, with `error_of_peak`, by as much of its peak.

    An amplitude's relative error of e is 20 / ln(10) e in dB.
    """
    below_db = below_peak_db - (0.0 if error_of_peak else RMS_BELOW_PEAK_DB)
    return 20 / math.log(10) * EPSILON * math.log2(window) * 10 ** (below_db / 20)


def sample_tolerance(operations: int, peak: float = 1.0) -> float:
    """Return how far a sample may be off after so many additions of terms up to the peak."""
    return EPSILON * operations * peak
