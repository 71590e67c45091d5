"""Names that others may rely on. A change here breaks somebody: say so in the changelog."""

import inspect
import json
from pathlib import Path

import numpy as np

from flows.cli import app
from preprocessing.decode import decode
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from store.reader import Snapshot, open_snapshot
from store.tags.write import read_genres, write_genres

VERBS = (
    "backup",
    "build",
    "certificates",
    "cross-validate",
    "demo",
    "doctor",
    "experiment",
    "fma",
    "models compare",
    "models export",
    "models list",
    "models promote",
    "models rollback",
    "models show",
    "prune",
    "register",
    "restore",
    "retrain-nightly",
    "serve",
    "store diff",
    "store export",
    "store import",
    "store log",
    "store show",
    "store sweep",
    "store tag",
    "store verify",
    "tag",
    "tags diff",
    "tags runs",
    "tags show",
    "train",
    "undo",
)
GROUPS = ("models", "store", "tags")
FLAGS = Path("tests/golden/command_line.json")


def parameters(function):
    return [
        (it.name, it.kind.name, it.default if it.default is not inspect.Parameter.empty else "required")
        for it in inspect.signature(function).parameters.values()
    ]


def test_decode():
    assert parameters(decode) == [
        ("url", "POSITIONAL_OR_KEYWORD", "required"),
        ("sample_rate_hz", "KEYWORD_ONLY", "required"),
        ("start_s", "KEYWORD_ONLY", 0.0),
        ("duration_s", "KEYWORD_ONLY", None),
    ]
    assert BadAudio("empty", "0 bytes").reason == "empty"


def test_log_mel():
    assert [name for name, _, _ in parameters(log_mel)] == ["wave_S", "settings"]
    mel_FM = log_mel(np.zeros(22_050, np.float32), MelSettings())
    assert mel_FM.dtype == np.float32
    assert mel_FM.shape == (40, 128)
    assert MelSettings().model_dump() == {
        "sample_rate_hz": 22_050,
        "window": 2_048,
        "hop": 512,
        "bands": 128,
        "low_hz": 0.0,
        "high_hz": None,
    }
    assert MelSettings().settings_hash == "6663242d817f", "stores built by an older version would be refused"


def test_reader():
    assert [name for name, _, _ in parameters(open_snapshot)] == ["url"]
    assert "track_ids" in vars(Snapshot)
    assert [name for name, _, _ in parameters(Snapshot.mel)] == ["self", "track_id"]


def test_tags():
    assert [name for name, _, _ in parameters(read_genres)] == ["path"]
    assert [name for name, _, _ in parameters(write_genres)] == ["path", "genres"]


def flags(verb):
    command = app
    for word in verb.split():
        command = command[word]
    return sorted(
        name
        for argument in command.assemble_argument_collection()
        for name in argument.names
        if name.startswith("--")
    )


def test_command_line():
    """To freeze them again: python -m tests.test_frozen_names"""
    assert {verb: flags(verb) for verb in VERBS} == json.loads(FLAGS.read_text())
    verbs = {name for name in app if not name.startswith("-")} - set(GROUPS)
    verbs |= {f"{group} {name}" for group in GROUPS for name in app[group] if not name.startswith("-")}
    assert verbs == set(VERBS)


if __name__ == "__main__":
    FLAGS.write_text(json.dumps({verb: flags(verb) for verb in VERBS}, indent=1) + "\n")
