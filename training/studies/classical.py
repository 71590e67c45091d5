"""Models without epochs, fitted on a table of features: a support-vector machine, logistic regression, boosted trees.

Axes: T tracks, D features, G genres.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.evaluation.probabilities import softmax

Balancing = Literal["none", "weights", "sampling"]
ClassicalName = Literal["svm", "logistic", "boosting"]
BOOSTING_ROUNDS = 200


def predict_classically(
    name: ClassicalName,
    train_TD: NDArray[np.float32],
    target_TG: NDArray[np.int8],
    test_TD: NDArray[np.float32],
    *,
    balancing: Balancing,
    seed: int,
) -> NDArray[np.float64]:
    """Fit on tracks of one genre each, and return the probabilities of other tracks.

    Shapes: (T, D), (T, G) of 0 and 1, (T', D) -> (T', G); each genre has at least one track to fit on.
    Source: the classifiers of FMA's baselines.ipynb (Defferrard et al., 2017), standardised features; the
        boosted trees are scikit-learn's histogram trees.

    With `weights`, an error on a track of a rare genre counts more; with `sampling`, tracks of the rarer genres
    are drawn again until all genres have as many.
    """
    genre_T = target_TG.argmax(axis=1)
    if balancing == "sampling":
        drawn = draw_equally(genre_T, seed)
        train_TD, genre_T = train_TD[drawn], genre_T[drawn]
    model = _make(name, "balanced" if balancing == "weights" else None, seed)
    model.fit(train_TD, genre_T)
    if name == "svm":
        margin = model.decision_function(test_TD)
        return softmax(np.stack([-margin, margin], axis=1) if margin.ndim == 1 else margin)
    return np.asarray(model.predict_proba(test_TD), np.float64)


def draw_equally(genre_T: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return rows in which all genres are equally frequent: all of the largest, those of others several times."""
    random = np.random.default_rng(seed)
    genres, counts = np.unique(genre_T, return_counts=True)
    most = int(counts.max())
    rows = []
    for genre in genres:
        own = random.permutation(np.flatnonzero(genre_T == genre))
        rows.append(np.resize(own, most))
    return np.sort(np.concatenate(rows))


def _make(name: ClassicalName, class_weight: str | None, seed: int):  # type: ignore[no-untyped-def]
    """Return an unfitted model of scikit-learn's. The imports cost a second."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    make: dict[str, Callable[[], object]] = {
        "svm": lambda: SVC(break_ties=True, class_weight=class_weight),
        "logistic": lambda: LogisticRegression(C=0.1, max_iter=2_000, class_weight=class_weight),
        "boosting": lambda: HistGradientBoostingClassifier(
            max_iter=BOOSTING_ROUNDS, class_weight=class_weight, random_state=seed
        ),
    }
    return make_pipeline(StandardScaler(), make[name]())
