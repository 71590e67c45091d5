import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.mel.settings import MelSettings
from store.fs.files import join, write_atomic
from store.model_registry import publish_version
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_FILE, HELD_OUT_PREDICTIONS_SCHEMA
from training.evaluation.settings import CalibrationSettings
from training.fit.run import TrainingRun, write_run
from training.inference.model_version import read_identity
from training.networks.network import WEIGHTS_FILE
from training.report.version_files import assemble_version
from training.run_files import HISTORY_FILE

MEL = MelSettings(bands=32)
RUN = TrainingRun(
    snapshot_url="memory://store/snapshots/3.json", mel_fingerprint=MEL.settings_hash, genres=("Folk", "Rock")
)
ABOUT = {"snapshot": RUN.snapshot_url, "code": "1.0", "trained": "2026-01-02", "settings": {"seed": 3}}


@pytest.fixture
def folder(tmp_path):
    """Write a finished run of 4 training, 40 validation and 20 test tracks."""
    splits = ["training"] * 4 + ["validation"] * 40 + ["test"] * 20
    tracks = pa.table(
        {
            "track_id": [str(number) for number in range(64)],
            "split": splits,
            "target": [[1, 0], [0, 1]] * 32,
        }
    )
    folder = str(tmp_path / "runs" / "0123456789ab")
    write_run(folder, RUN, tracks)
    history = {"best_epoch": 1, "epochs": [{"epoch": 1, "train_loss": 0.7, "validation_loss": 0.6}]}
    write_atomic(join(folder, HISTORY_FILE), json.dumps(history).encode())
    write_atomic(join(folder, WEIGHTS_FILE), b"the weights")
    return folder


def predict_held_out():
    random = np.random.default_rng(0)
    likely = random.random(60)
    truth = np.stack([random.random(60) < likely, np.zeros(60, bool)], axis=1)
    truth[:, 1] = ~truth[:, 0]
    columns = {
        "track_id": [str(number) for number in range(4, 64)],
        "split": ["validation"] * 40 + ["test"] * 20,
        "artist": [f"artist {number}" for number in range(60)],
        "title": [None] * 60,
        "truth": truth.astype(int).tolist(),
        "probabilities": np.stack([likely, 1 - likely], axis=1).tolist(),
    }
    return pa.table(columns).cast(HELD_OUT_PREDICTIONS_SCHEMA)


def read_mel(_):
    return np.random.default_rng(1).normal(-20, 15, (600, 32)).astype(np.float32)


def test_a_version_has_weights_predictions_report_and_cards(folder, tmp_path):
    models, predictions = str(tmp_path / "models"), predict_held_out()
    earlier = publish_version(models, {HELD_OUT_PREDICTIONS_FILE: to_bytes(predictions)}, {})
    files, card = assemble_version(
        folder,
        RUN,
        predictions,
        snapshot=SimpleNamespace(mel_settings=MEL.model_dump(mode="json"), mel=read_mel),
        models=models,
        calibration_settings=CalibrationSettings(),
        rejects=[{"track_id": "9", "reason": "empty", "detail": "0 bytes"}],
        about=ABOUT,
    )
    assert {WEIGHTS_FILE, HELD_OUT_PREDICTIONS_FILE, "MODEL_CARD.md", "report/report.html"} < set(files)
    assert files[WEIGHTS_FILE] == b"the weights"
    assert pq.read_table(io.BytesIO(files[HELD_OUT_PREDICTIONS_FILE])).equals(predictions)
    assert card["metrics"] == json.loads(files["report/metrics.json"])
    assert (card["run"], card["best_epoch"], card["parent"]) == (folder, 1, None)
    assert card["tracks"] == {"training": 4, "validation": 40, "test": 20}
    assert card["test_use"]["earlier_versions"] == [{"version": earlier, "tracks": 20}]
    assert ABOUT.items() <= card.items()
    assert card["calibration_notes"][0] in files["MODEL_CARD.md"].decode()
    version = publish_version(models, files, card)
    assert read_identity(join(models, version)).calibration.temperature == card["calibration"]["temperature"]


def to_bytes(table):
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
