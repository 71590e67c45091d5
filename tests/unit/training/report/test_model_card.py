import json

import numpy as np
import pyarrow as pa
import pytest

from preprocessing.mel.settings import MelSettings
from training.evaluation.calibration import UNREACHABLE_THRESHOLD, Calibration
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_SCHEMA
from training.evaluation.tables import metrics_json, score_splits
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity
from training.report.model_card import write_model_card

GENRES = ("Folk", "Post-Rock | <b>Krautrock</b>", "Rock")
CALIBRATION = Calibration(
    temperature=1.75, thresholds=(0.25, UNREACHABLE_THRESHOLD, 0.5), parents={GENRES[1]: "Rock"}
)


@pytest.fixture(scope="module")
def card():
    draw = np.random.default_rng(0)
    predictions = pa.table(
        {
            "track_id": [str(number) for number in range(60)],
            "split": ["validation", "test"] * 30,
            "artist": [f"artist {number // 2}" for number in range(60)],
            "title": [None] * 60,
            "truth": draw.integers(0, 2, (60, 3)).tolist(),
            "probabilities": draw.random((60, 3)).tolist(),
        }
    ).cast(HELD_OUT_PREDICTIONS_SCHEMA)
    identity = ModelIdentity(
        genres=GENRES,
        mel=MelSettings(),
        training=TrainSettings(target="multi", seed=77),
        calibration=CALIBRATION,
    )
    results = score_splits(predictions, GENRES, "multi", CALIBRATION)
    return {
        **identity.model_dump(mode="json"),
        "snapshot": "file:///store/snapshots/7.json",
        "code": "0.1.0 (1234abc)",
        "trained": "2026-01-02T03:04:05+00:00",
        "run": "/models/runs/0123456789ab",
        "best_epoch": 9,
        "baseline": None,
        "choice": None,
        "tracks": {"training": 1200, "validation": 30, "test": 30},
        "calibration_notes": ["A temperature of 1.75, fitted on 30 validation tracks."],
        "test_use": {
            "test_set": "0a1b2c3d4e5f",
            "tracks": 30,
            "evaluated_at": "2026-01-02",
            "earlier_versions": [{"version": "v1", "tracks": 30}, {"version": "v2", "tracks": 29}],
        },
        "parent": "https://example.org/resnet18.pth",
        "data": "feedfacecafe",
        "metrics": json.loads(metrics_json("m", results, GENRES, "multi", ["The test set is small."])),
    }


def test_the_card_contains_what_a_user_must_know(card):
    text = write_model_card(card)
    for expected in (
        "# Model card: run 0123456789ab",
        "## Intended use and limits",
        "file:///store/snapshots/7.json",
        "1,200 training, 30 validation, 30 test",
        "`feedfacecafe`",
        "0.1.0 (1234abc)",
        "https://example.org/resnet18.pth",
        "best epoch 9",
        "Temperature: 1.750",
        "A temperature of 1.75, fitted on 30 validation tracks.",
        "Test set `0a1b2c3d4e5f`: 30 tracks",
        "2 earlier versions in this folder had been scored on some or all of them: `v1` (30 tracks), `v2` (29 tracks).",
        "Seed 77",
        "| `learning_rate` | 0.001 |",
        "| `model.name` |",
        "Genres with a parent: 1.",
        "- The test set is small.",
    ):
        assert expected in text, expected


def test_scores_have_their_intervals(card):
    test = card["metrics"]["test"]
    text = write_model_card(card)
    for key, label in (("accuracy", "Accuracy"), ("macro_f1", "Macro F1"), ("log_loss", "Log-loss, in nats")):
        interval = test[f"{key}_interval"]
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
        assert f"{test[key]:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]" in line
    assert "among the likeliest" not in text, "of several genres a track there is no top-k"


def test_each_genre_has_a_row_of_eight_cells_whatever_its_name(card):
    lines = write_model_card(card).splitlines()
    start = lines.index("## Genre by genre, on the test tracks") + 4
    rows = [line.replace("\\|", "") for line in lines[start : start + 3]]
    assert [row.count("|") for row in rows] == [9, 9, 9]
    assert rows[0].endswith("| 0.250 |")
    assert rows[1].startswith("| Post-Rock  \\<b>Krautrock\\</b> (a kind of Rock) |")
    assert rows[1].endswith("| never |")
