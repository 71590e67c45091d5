import numpy as np

from training.evaluation.probabilities import log_softmax, softmax
from training.metadata_priors.combination import fit_source_weights
from training.metadata_priors.group_smoothing import mean_of_others
from training.metadata_priors.word_prior import fit_word_prior, split_words


def test_the_others_of_a_group_are_averaged_without_the_track_itself():
    values_TG = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0], [7.0, 7.0], [9.0, 9.0]])
    found_TG = mean_of_others(values_TG, ["a", "a", "a", "b", None])
    assert found_TG.tolist() == [[4, 3], [3, 2], [2, 1], [0, 0], [0, 0]]
    assert mean_of_others(values_TG, [None] * 5).tolist() == [[0, 0]] * 5


def test_words_are_folded_distinct_and_without_numbers():
    assert split_words("Sonata No. 2: SONATA in \uff27 major, Op. 50 - <b>Largo</b>") == [
        "sonata", "no", "in", "major", "op", "largo",
    ]  # fmt: skip


def test_a_word_of_one_genre_speaks_for_it_and_one_of_all_genres_for_none():
    texts = ["sonata in blue", "sonata in red", "riff in blue", "riff in red"]
    prior = fit_word_prior(texts, np.arange(4), np.array([0, 0, 1, 1]), 2)
    sonata_G, in_G, nothing_G = prior.apply(["a SONATA", "in", "unknown"])
    np.testing.assert_allclose(sonata_G, [np.log(3) / 2, -np.log(3) / 2])  # (2 + 1) / (0 + 1)
    np.testing.assert_allclose(in_G, [0, 0])
    assert nothing_G.tolist() == [0, 0]


def test_a_word_of_a_single_artist_is_not_learned():
    texts = ["ghost one", "ghost two", "ghost three", "riff", "riff"]
    prior = fit_word_prior(texts, np.array([0, 0, 0, 1, 2]), np.array([0, 0, 0, 1, 1]), 2)
    assert prior.apply(["ghost"]).tolist() == [[0, 0]]
    assert prior.apply(["riff"])[0, 1] > 0


def test_a_source_that_knows_the_truth_gets_weight_and_noise_gets_hardly_any():
    random, truth_T = np.random.default_rng(0), np.arange(300) % 3
    unsure_TG = log_softmax(random.normal(0, 0.5, (300, 3)) + 0.5 * np.eye(3)[truth_T])
    informed_TG, noise_TG = 3.0 * np.eye(3)[truth_T], random.normal(0, 1, (300, 3))
    found = fit_source_weights(unsure_TG, [informed_TG, noise_TG], truth_T)
    assert found.source_K[0] > 0.5
    assert found.source_K[1] < 0.1
    combined_TG = found.combine(unsure_TG, [informed_TG, noise_TG])
    assert (combined_TG.argmax(axis=1) == truth_T).mean() > 0.99


def test_without_sources_the_combination_is_the_sound_at_a_fitted_sharpness():
    log_TG = np.log(np.array([[0.7, 0.3], [0.4, 0.6]]))
    found = fit_source_weights(log_TG, [], np.array([0, 1]))
    np.testing.assert_allclose(found.combine(log_TG, []), softmax(found.own * log_TG))
