"""The kinds of spectrograms."""

import numpy as np
import pytest

from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from training.studies.variants import list_variants, normalise

MEL = MelSettings(sample_rate_hz=8_000, window=256, hop=128, bands=32)


@pytest.fixture(scope="module")
def wave():
    return np.random.default_rng(3).normal(0, 0.1, 16_000).astype(np.float32)


def test_the_base_is_the_product_s_spectrogram_and_each_variant_has_its_bands(wave):
    variants = {it.name: it for it in list_variants(MEL)}
    np.testing.assert_array_equal(variants["base"].compute(wave), log_mel(wave, MEL))
    for variant in variants.values():
        values = variant.compute(wave)
        assert values.dtype == np.float32
        assert values.shape[1] == variant.mel.bands, variant.name
        assert np.isfinite(values).all(), variant.name


def test_an_excerpt_is_the_beginning(wave):
    whole = next(it for it in list_variants(MEL) if it.name == "base").compute(wave)
    excerpt = next(it for it in list_variants(MEL) if it.part == "excerpt")
    short = type(excerpt)("short", "excerpt", MEL, excerpt_s=1.0).compute(wave)
    np.testing.assert_array_equal(short, whole[: len(short)])
    assert len(short) == MEL.count_frames(1.0)


@pytest.mark.parametrize(("how", "axis"), [("track", None), ("band", 0)])
def test_normalised_values_have_one_mean_and_deviation(how, axis):
    values = normalise(np.random.default_rng(0).normal(5, 3, (200, 8)).astype(np.float32), how)
    np.testing.assert_allclose(values.mean(axis=axis), -10, atol=1e-3)
    np.testing.assert_allclose(values.std(axis=axis), 30, rtol=1e-3)
