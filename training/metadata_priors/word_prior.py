"""The genre by the words of a title: naive Bayes, counted by artist.

Axes: T tracks, W words, G genres.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_ARTISTS = 2  # a word of a single artist is a name
PSEUDO_ARTISTS = 1.0  # added to the count of each word and genre (Laplace)
WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class WordPrior:
    """The logarithm of how much more often than on average a word is in titles of each genre."""

    log_ratio_of: dict[str, NDArray[np.float64]]
    genres: int

    def apply(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the sum over the known words of each text. Shapes: T texts -> (T, G); 0 without a known word."""
        nothing_G = np.zeros(self.genres)
        return np.array(
            [
                sum((self.log_ratio_of.get(word, nothing_G) for word in split_words(text)), nothing_G)
                for text in texts
            ]
        ).reshape(len(texts), self.genres)


def split_words(text: str) -> list[str]:
    """Return the distinct words of a text, without numbers, whatever their case; in order."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return list(dict.fromkeys(WORD.findall(folded)))


def fit_word_prior(
    texts: Sequence[str], artist_T: NDArray[np.int64], genre_T: NDArray[np.int64], genres: int
) -> WordPrior:
    """Fit on training tracks. Each artist counts once for a word and genre, however many tracks they have.

    Source: multinomial naive Bayes (McCallum and Nigam, 1998), with Laplace's smoothing.
    """
    artists_of: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for text, artist, genre in zip(texts, artist_T.tolist(), genre_T.tolist(), strict=True):
        for word in split_words(text):
            artists_of[word].add((artist, genre))
    all_pairs = {pair for pairs in artists_of.values() for pair in pairs}
    artists_G = _count_genres(all_pairs, genres)
    log_ratio_of = {}
    for word, pairs in artists_of.items():
        if len({artist for artist, _ in pairs}) >= MIN_ARTISTS:
            rate_G = (_count_genres(pairs, genres) + PSEUDO_ARTISTS) / (artists_G + 2 * PSEUDO_ARTISTS)
            log_ratio_of[word] = np.log(rate_G) - np.log(rate_G).mean()
    return WordPrior(log_ratio_of, genres)


def _count_genres(pairs: set[tuple[int, int]], genres: int) -> NDArray[np.float64]:
    return np.bincount([genre for _, genre in pairs], minlength=genres).astype(np.float64)
