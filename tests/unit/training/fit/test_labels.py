import pytest

from training.fit.labels import restrict_genre_tree

TREE = {"Krautrock": "Psych-Rock", "Psych-Rock": "Rock", "Metal": "Rock", "Death-Metal": "Metal"}


@pytest.mark.parametrize(
    ("genres", "parents"),
    [
        (("Death-Metal", "Krautrock", "Rock"), {"Death-Metal": "Rock", "Krautrock": "Rock"}),
        (("Death-Metal", "Metal", "Rock"), {"Death-Metal": "Metal", "Metal": "Rock"}),
        (("Death-Metal", "Krautrock"), {}),
        (("Polka", "Rock"), {}),
    ],
)
def test_a_genre_has_its_nearest_ancestor_among_the_genres_of_the_model(genres, parents):
    assert restrict_genre_tree(genres, TREE) == parents
