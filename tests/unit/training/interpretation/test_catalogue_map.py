import numpy as np

from training.interpretation.catalogue_map import place_on_map, project_on_components


def test_two_groups_of_sounds_are_two_groups_on_the_map_and_the_same_for_a_seed():
    random = np.random.default_rng(0)
    features_TD = np.concatenate([random.normal(0, 1, (12, 5)), random.normal(30, 1, (12, 5))]).astype(
        np.float32
    )
    position_T2 = place_on_map(features_TD, seed=0)
    assert position_T2.min() == 0
    assert position_T2.max() == 1
    one, other = position_T2[:12], position_T2[12:]
    apart = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
    assert apart > 2 * max(np.linalg.norm(each - each.mean(axis=0), axis=1).max() for each in (one, other))
    np.testing.assert_array_equal(position_T2, place_on_map(features_TD, seed=0))


def test_few_tracks_and_equal_tracks_have_a_place():
    assert place_on_map(np.ones((3, 4), np.float32), seed=0).tolist() == [[0, 0]] * 3
    np.testing.assert_allclose(
        np.ptp(project_on_components(np.array([[0], [3], [9]], np.float32)), axis=0), [9, 0]
    )
