"""Models and held-out predictions to select genres from, for tests."""

from uuid import uuid4

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from preprocessing.mel.settings import MelSettings
from store.fs.files import write_atomic
from store.fs.parquet import to_parquet
from training.evaluation.calibration import Calibration
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_FILE, HELD_OUT_PREDICTIONS_SCHEMA
from training.fit.settings import TrainSettings
from training.inference.genre_selection import select_genres
from training.inference.model_version import ModelIdentity
from training.inference.settings import GenreSelectionSettings

GENRES = ("Black-Metal", "Folk", "Metal", "Punk", "Rock")
TREE = {"Black-Metal": "Metal", "Metal": "Rock", "Punk": "Rock"}
KINDS = [("top", "top"), ("top", "multi"), ("multi", "top"), ("multi", "multi"), ("multi", "path")]


def model_identity(target="multi", genres=GENRES, **calibration) -> ModelIdentity:
    chosen = {"parents": TREE if target == "multi" else {}, **calibration}
    return ModelIdentity(
        genres=genres,
        mel=MelSettings(),
        training=TrainSettings(target=target),
        calibration=Calibration(**chosen),
    )


def publish_held_out(truth, raw, splits=None) -> str:
    """Store truth and probabilities of tracks as the held-out predictions of a version in memory."""
    url = f"memory://versions/{uuid4().hex}"
    rows = [
        {"track_id": str(number), "split": split, "truth": has, "probabilities": given}
        for number, (split, has, given) in enumerate(
            zip(splits or ["validation"] * len(truth), np.asarray(truth).tolist(), raw.tolist(), strict=True)
        )
    ]
    write_atomic(
        f"{url}/{HELD_OUT_PREDICTIONS_FILE}",
        to_parquet(pa.Table.from_pylist(rows, schema=HELD_OUT_PREDICTIONS_SCHEMA)),
    )
    return url


@st.composite
def held_out(draw, target):
    """Draw truth and probabilities: of some genres predicted with skill, of others by luck."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tracks = draw(st.integers(1, 120))
    digits = draw(st.integers(1, 6))
    skill = random.random(len(GENRES)).round()
    raw = random.random((tracks, len(GENRES))).round(digits).astype(np.float32)
    if target == "top":
        truth = np.eye(len(GENRES), dtype=int)[random.integers(0, len(GENRES), tracks)]
    else:
        truth = (random.random(raw.shape) < draw(st.floats(0.05, 0.6))).astype(int)
    return truth, ((1 - skill) * raw + skill * truth * random.random(raw.shape)).astype(np.float32)


def genre_matrix(selections) -> np.ndarray:
    return np.array([[genre in each.genres for genre in GENRES] for each in selections])


def selected_by(raw, model, fitted) -> np.ndarray:
    return genre_matrix(select_genres(raw.astype(np.float64), [None] * len(raw), model, fitted))


def selection_settings(kind, **fixed):
    some = st.lists(st.sampled_from(GENRES), unique=True).map(tuple)
    return st.builds(
        GenreSelectionSettings,
        kind=st.just(kind),
        min_confidence=st.sampled_from([0.0, 0.3, 0.55]),
        genres=some,
        max_genres=st.integers(0, 3),
        **fixed,
    )
