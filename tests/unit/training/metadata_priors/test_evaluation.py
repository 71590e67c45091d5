import numpy as np
import pyarrow as pa

from training.metadata_priors.evaluation import SOUND_SCHEMA, Fold, combine_sources

GENRES = ("Folk", "Rock")


def catalogue(artists=20, tracks_each=4):
    """Artists of one genre each; the title names it, the album does not."""
    rows = [
        {
            "track_id": f"{artist}-{number}",
            "artist": f"artist {artist}",
            "album": f"album {artist}",
            "title": f"{'ballad' if artist % 2 == 0 else 'riff'} {artist}-{number}",
            "genre_top": GENRES[artist % 2],
        }
        for artist in range(artists)
        for number in range(tracks_each)
    ]
    return pa.Table.from_pylist(rows)


def sound(fold, noise, seed=0):
    """Return predictions that are right on average, and wrong on single tracks."""
    truth_T = fold.truth()
    logit_T = np.where(truth_T == 1, 1.0, -1.0) + np.random.default_rng(seed).normal(0, noise, len(truth_T))
    rock_T = 1 / (1 + np.exp(-logit_T))
    columns = [fold.tracks["track_id"], fold.is_test(), np.column_stack([1 - rock_T, rock_T]).tolist()]
    return pa.table(columns, names=SOUND_SCHEMA.names).cast(SOUND_SCHEMA)


def accuracy(fold, table, *sources):
    probability_TG, weights = combine_sources(fold, table, sources)
    return (probability_TG.argmax(axis=1) == fold.truth()[fold.is_test()]).mean(), weights


def make_fold(tracks):
    artist_T = np.array([int(name.split()[1]) for name in tracks["artist"].to_pylist()])
    return Fold(tracks, GENRES, artist_T // 2 % 5, fold=1)


def test_other_tracks_of_the_artist_and_words_of_titles_correct_single_tracks():
    fold = make_fold(catalogue())
    table = sound(fold, noise=1.5)
    alone, _ = accuracy(fold, table)
    for source in ("album", "artist"):
        with_source, weights = accuracy(fold, table, source)
        assert with_source > alone
        assert weights.source_K[0] > 0.2
    assert accuracy(fold, table, "title")[0] == 1


def test_no_label_and_no_title_of_a_tested_track_changes_any_prediction():
    """Tested tracks with the labels and words of the other genre are predicted as before."""
    tracks = catalogue()
    fold = make_fold(tracks)
    table = sound(fold, noise=1.0)
    swapped = [
        GENRES[1 - int(index)] if tested else GENRES[int(index)]
        for index, tested in zip(fold.truth(), fold.is_test(), strict=True)
    ]
    other = Fold(
        tracks.set_column(tracks.schema.get_field_index("genre_top"), "genre_top", pa.array(swapped)),
        GENRES, fold.fold_T, fold.fold,
    )  # fmt: skip
    sources = ("album", "artist", "title")
    np.testing.assert_array_equal(
        combine_sources(fold, table, sources)[0], combine_sources(other, table, sources)[0]
    )


def test_unknown_artists_and_titles_leave_the_sound_as_it_is():
    tracks = catalogue()
    for name in ("artist", "album", "title"):
        tracks = tracks.set_column(
            tracks.schema.get_field_index(name), name, pa.nulls(len(tracks), pa.string())
        )
    fold = Fold(tracks, GENRES, np.arange(len(tracks)) // 2 % 5, fold=0)
    table = sound(fold, noise=1.0)
    np.testing.assert_allclose(
        combine_sources(fold, table, ("album", "artist", "title"))[0],
        combine_sources(fold, table, ())[0],
        rtol=1e-6,
    )
