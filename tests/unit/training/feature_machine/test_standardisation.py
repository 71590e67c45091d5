import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import pdist

from training.feature_machine.standardisation import fit_standardisation, genre_separation

GENRES = 3


def artists(count, seed=0):
    """Draw for each of some artists one genre and three features: the first depends on the genre."""
    random = np.random.default_rng(seed)
    genre_A = np.arange(count) % GENRES
    mean_AD = random.normal(size=(count, 3))
    mean_AD[:, 0] += 2 * genre_A
    return np.eye(GENRES)[genre_A], mean_AD.astype(np.float32)


def test_the_separation_is_the_f_statistic_of_artists():
    target_TG, values_TD = artists(30)
    of_genre = [values_TD[target_TG[:, genre] > 0].astype(np.float64) for genre in range(GENRES)]
    found_D = genre_separation(values_TD, target_TG, np.arange(30))
    np.testing.assert_allclose(found_D, scipy.stats.f_oneway(*of_genre).statistic, rtol=1e-5)


def test_more_tracks_of_an_artist_count_as_one():
    target_TG, values_TD = artists(30)
    rows = np.repeat(np.arange(30), np.arange(30) % 4 + 1)
    np.testing.assert_allclose(
        genre_separation(values_TD[rows], target_TG[rows], rows),
        genre_separation(values_TD, target_TG, np.arange(30)),
        rtol=1e-5,
    )


def test_tracks_of_several_genres_are_separated_by_each():
    random = np.random.default_rng(1)
    target_TG = random.integers(0, 2, (300, GENRES)).astype(np.float64)
    noise_TD = random.normal(size=(300, 4))
    noise_TD[:, :GENRES] += 2 * target_TG
    found_D = genre_separation(noise_TD.astype(np.float32), target_TG, np.arange(300))
    assert (found_D[:GENRES] > 50).all()
    assert found_D[GENRES] < 4, "noise: 1, with a standard deviation of 0.8"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_artists_separate_nothing(count):
    target_TG, values_TD = artists(count)
    np.testing.assert_array_equal(genre_separation(values_TD, target_TG, np.arange(count)), 1)


def test_a_feature_that_separates_genres_counts_more_and_one_that_is_constant_does_not_count():
    target_TG, values_TD = artists(60)
    values_TD[:, 2] = 5
    found = fit_standardisation(values_TD, target_TG, np.arange(60), {"rhythm": 3}, seed=0)
    z_TD = found.apply(values_TD)
    spread_D = z_TD.std(axis=0)
    assert spread_D[0] > 5 * spread_D[1] > 0
    assert spread_D[2] == 0
    distance = np.abs(z_TD[:, None] - z_TD).sum(axis=2).mean()
    assert distance == pytest.approx(1, rel=1e-5)


def test_musicnn_makes_up_half_of_the_distance_and_the_other_blocks_share_the_rest():
    target_TG, values_TD = artists(30)
    sizes = {"rhythm": 1, "musicnn": 1, "patches": 1}
    standardisation = fit_standardisation(values_TD, target_TG, np.arange(30), sizes, seed=0)
    z_TD = standardisation.apply(values_TD)
    # The mean over all pairs of tracks, a track and itself among them, as the shares are defined.
    of_block = [pdist(z_TD[:, [column]], "cityblock").sum() * 2 / 30**2 for column in range(3)]
    np.testing.assert_allclose(of_block, [0.25, 0.5, 0.25], rtol=1e-5)
    alone = fit_standardisation(values_TD[:, 1:2], target_TG, np.arange(30), {"musicnn": 1}, seed=0)
    assert pdist(alone.apply(values_TD[:, 1:2]), "cityblock").sum() * 2 / 30**2 == pytest.approx(1)
