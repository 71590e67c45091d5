"""Joint time-frequency scattering of a log-mel crop: how strongly it is modulated in time and along the bands.

Axes: F frames, M mel bands, N frequencies of a 2-D spectrum in time, K along the bands, Z zones of bands.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

TIME_CENTRES_HZ = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
BAND_CENTRES = (0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)  # cycles a band, of either sign
TIME_SIGMA_AT_0_HZ, BAND_SIGMA_AT_0 = 0.1, 1 / 256  # in Hz, and in cycles a band
RELATIVE_SIGMA = 0.35  # of any other centre
CUTOFF = 2.6  # in sigmas: a Gaussian is 0 beyond
MIN_TIMES, MIN_BANDS = 16, 32  # samples of a filter's output
ZONES = 8


@dataclass(frozen=True)
class _AxisFilter:
    """A Gaussian on one axis of a spectrum: the bins it keeps, its gain at each, and its output's samples."""

    bins: NDArray[np.int64]
    gains: NDArray[np.float32]
    samples: int


def filter_centres() -> list[tuple[float, float]]:
    """Return the centre of each filter, in Hz and in cycles a band, in the order of the features."""
    return [
        (time_hz, sign * band)
        for time_hz in TIME_CENTRES_HZ
        for band in BAND_CENTRES
        for sign in _signs(time_hz, band)
    ]


def _signs(time_hz: float, band: float) -> tuple[int, ...]:
    """Return the signs of the band frequency: a real signal's spectrum is symmetric, and its mean is removed."""
    if band == 0:
        return (1,) if time_hz > 0 else ()
    return (1, -1) if time_hz > 0 else (1,)


def scatter(mel_FM: NDArray[np.float32], frames_per_s: float) -> NDArray[np.float32]:
    """Return the mean modulus of each filter's output in each zone of bands.

    Shapes: (F, M) in dB -> (82 * 8,), the zones of a filter side by side, from low to high bands.
    Source: joint time-frequency scattering (Andén, Lostanlen, Mallat, 2019), its first layer being the mel bands.

    The bands are mirrored at the upper edge, so that the transform joins no high band to a low one.
    """
    centred_FM = mel_FM - mel_FM.mean()
    mirrored_FK = np.concatenate([centred_FM, centred_FM[:, ::-1]], axis=1)
    spectrum_NK = scipy.fft.fft2(mirrored_FK).astype(np.complex64) / mirrored_FK.size
    time_filters, band_filters = _axis_filters(*mirrored_FK.shape, frames_per_s)
    features = []
    for time_hz, in_time in zip(TIME_CENTRES_HZ, time_filters, strict=True):
        kept_NK = spectrum_NK[in_time.bins] * in_time.gains[:, None]
        times_FK = scipy.fft.ifft(kept_NK, in_time.samples, axis=0, norm="forward")
        for band, along_bands in zip(BAND_CENTRES, band_filters, strict=True):
            if signs := _signs(time_hz, band):
                features.append(_zone_means(times_FK, along_bands)[: len(signs)])
    return np.concatenate(features).astype(np.float32).ravel()


def _zone_means(times_FK: NDArray[np.complex64], along_bands: _AxisFilter) -> NDArray[np.float32]:
    """Filter along the bands, at both signs; return the mean modulus in each zone. Shapes: (F, K) -> (2, Z).

    On the mirror image, the second half, a filter does what the one of the other sign does on the first.
    """
    kept_FK = times_FK[:, along_bands.bins] * along_bands.gains
    output_FK = scipy.fft.ifft(kept_FK, along_bands.samples, axis=1, norm="forward")
    zones_2Z = np.abs(output_FK).mean(axis=0).reshape(2, ZONES, -1).mean(axis=2)
    return np.stack([zones_2Z[0], zones_2Z[1, ::-1]])


@lru_cache(maxsize=8)
def _axis_filters(
    frames: int, bands: int, frames_per_s: float
) -> tuple[tuple[_AxisFilter, ...], tuple[_AxisFilter, ...]]:
    time_hz = np.fft.fftfreq(frames, 1 / frames_per_s)
    cycles = np.fft.fftfreq(bands)
    in_time = tuple(
        _axis_filter(time_hz, centre, RELATIVE_SIGMA * centre or TIME_SIGMA_AT_0_HZ, MIN_TIMES)
        for centre in TIME_CENTRES_HZ
    )
    along_bands = tuple(
        _axis_filter(cycles, centre, RELATIVE_SIGMA * abs(centre) or BAND_SIGMA_AT_0, MIN_BANDS)
        for centre in BAND_CENTRES
    )
    return in_time, along_bands


def _axis_filter(
    frequencies: NDArray[np.floating], centre: float, sigma: float, min_samples: int
) -> _AxisFilter:
    distance = np.abs(frequencies - centre) / sigma
    bins = np.flatnonzero(distance <= CUTOFF)
    if not bins.size:
        bins = np.array([distance.argmin()])  # a crop too short to resolve the filter
    bins = bins[np.argsort(frequencies[bins])]
    # In order of frequency the output is the filter's, at fewer samples and modulated: its modulus is the same.
    samples = 1 << int(max(min_samples, bins.size) - 1).bit_length()
    return _AxisFilter(bins, np.exp(-(distance[bins] ** 2) / 2).astype(np.float32), samples)
