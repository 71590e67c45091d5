"""The command line with mistakes: one line of error, an exit status that is not 0, no traceback, no server."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from preprocessing.mel.settings import MelSettings
from store.model_registry import promote, publish_version
from tests.support.prefect_ui import clean_environment
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity

MUSIC = Path("tests/data/demo_music/fma_small/200").absolute()
# Starting costs seconds, so one process runs all command lines, and prints status and errors of each.
MANY_COMMANDS = """
import contextlib, io, json, sys
from flows import cli
for line in json.load(sys.stdin):
    sys.argv[1:], errors, cli.app.config = line, io.StringIO(), None
    with contextlib.redirect_stderr(errors):
        try:
            status = cli.main() or 0
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, errors.getvalue()]), flush=True)
assert "prefect" not in sys.modules, "nothing here is to be recorded"
"""
MISTAKES = {
    "build nowhere": "nowhere: no such file or folder; check the path or URL of the source",
    "build empty": "empty: 0 files, none of them audio",
    "build other-csv": "other-csv/tracks.csv: ",
    "build one-artist --catalogue.split.mode artist": "artist",
    "build half-broken --store rejects": "half-broken: 1 of 2 tracks (50%) cannot be decoded; at most 10% may be",
    "build good --store store --spectrogram.mel.hop 256": "store: was built with hop 512 (wanted 256)",
    "build good --spectrogram.mel.hop 0": "--spectrogram.mel.hop",
    "build good --hope 1": "Unknown option: --hope",
    "train --store nowhere": "nowhere: holds no published spectrograms",
    "train --store store --genres Polka": "'Polka'",
    "tag good --models nowhere": "nowhere: holds no champion model; train one",
    "tag good --models models --genres Polka": "genre 'Polka': not one of this model's: Jazz, Rock",
    "tag good --write --copy-to copies": "--write and --copy-to are both given",
    "tag": "--source, --apply: give one of them: audio files, or the predictions.parquet of an earlier run",
    "tag good --models models --genre-map not.toml": "not.toml: ",
    "tag good --models models --precision 0.9": "has no stored predictions (report/held_out_predictions.parquet is "
    "missing); train it again",
    "tag good --models models --kind path": "kind path: this model has no genre tree",
    "tag --apply good/a.mp3 --write": "good/a.mp3: not readable as Parquet",
    "undo latest --runs nowhere": "nowhere: no run latest that wrote into files; `spectrogram-one tags runs`",
    "undo": "--run",
    "build good --cluster.kind scheduler": "--cluster.kind scheduler with --cluster.scheduler '': an address is needed",
    "build good elsewhere --store store": "'elsewhere': unexpected argument",
    "build --store store": "--source: required",
    "train --hosts.min-hosts 3 --hosts.max-hosts 2": "--hosts.min-hosts 3 is more than --hosts.max-hosts 2",
    "retrain-nightly --build.source x --train.training.batch-size 9": "--train.training.batch-size 9 is not a multiple "
    "of --train.training.micro-batch-size 16",
    "tags show nowhere": "nowhere: no such file or folder",
    "tags diff good nowhere": "nowhere: no such file or folder",
    "tag --config tag.toml": "in-the-file: holds no champion model",
    "models show --models nowhere": "nowhere: holds no champion model; train one",
    "models show nobody --models models": "models/nobody: no model version",
    "models rollback --models models": "models/champion.json: no champion to go back to",
    "models compare champion latest --models models": "has no stored predictions",
    "models list --models damaged": "damaged/champion.json: names no champion that can be read",
    "retrain-nightly --build.source good --build.store store": "--build.store store and --train.store data/store",
    "build --config gone.toml": "gone.toml: no such file",
    "build --config not.toml": "not.toml: Invalid value (at line 1, column 10); --config wants a TOML file",
    "build --config unknown.toml": "unknown.toml. Did you mean --spectrogram.mel.hop?",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run each command line; return status and standard error by command line."""
    folder = tmp_path_factory.mktemp("mistakes")
    lay_out(folder)
    lines = ["build good --store store --cluster.workers 1", *MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", MANY_COMMANDS],
        cwd=folder,
        env=clean_environment(folder),
        input=json.dumps([line.split() for line in lines]),
        capture_output=True,
        text=True,
        check=True,
    )
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    results = dict(zip(lines, ends, strict=True))
    status, errors = results.pop(lines[0])
    assert status == 0, errors
    return results


def lay_out(folder):
    """Make folders and files with something wrong in each."""
    for name in ("good", "half-broken", "empty", "other-csv/fma_small", "one-artist/jazz", "one-artist/rock"):
        (folder / name).mkdir(parents=True)
    for name in ("good/a.mp3", "half-broken/a.mp3", "one-artist/jazz/a.mp3", "one-artist/rock/a.mp3"):
        shutil.copy(MUSIC / "200001.mp3", folder / name)
    shutil.copy(MUSIC / "200050.mp3", folder / "half-broken/page.mp3")
    (folder / "other-csv/tracks.csv").write_text("track,genre\n1,Rock\n")
    (folder / "damaged").mkdir()
    (folder / "damaged/champion.json").write_text("{")
    (folder / "tag.toml").write_text('source = "good"\nmodels = "in-the-file"\nprecision = 0.9\n')
    (folder / "not.toml").write_text("source = \n")
    (folder / "unknown.toml").write_text('source = "good"\n[spectrogram.mel]\nhoop = 256\n')
    knows = ModelIdentity(genres=("Jazz", "Rock"), mel=MelSettings(), training=TrainSettings())
    promote(f"{folder}/models", publish_version(f"{folder}/models", {}, knows.model_dump(mode="json")))


@pytest.mark.parametrize(("line", "message"), MISTAKES.items())
def test_a_mistake_is_reported_in_one_line(line, message, results):
    status, errors = results[line]
    assert status in (1, 2)
    assert "Traceback" not in errors
    (error,) = [each for each in errors.splitlines() if each.startswith("error: ")]
    assert message in error
