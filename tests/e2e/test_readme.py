"""The README's commands exist as they stand there, and its Python runs."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flows.settings import BuildSettings
from preprocessing.build.settings import SpectrogramSettings
from preprocessing.build.shard_task import Track, build_shard
from preprocessing.decode.settings import LimitSettings
from store.dataset.snapshots import publish, put_catalogue
from tests.test_frozen_names import GROUPS

README = Path("README.md").read_text()
FLAGS = json.loads(Path("tests/golden/command_line.json").read_text())
COMMANDS = re.findall(r"^    (spectrogram-one .*)$", README, re.MULTILINE)
TARGETS = set(re.findall(r"^    .*\bmake (\w+)$", README, re.MULTILINE)) | set(
    re.findall(r"`make (\w+)`", README)
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_flag_exists(command):
    verb, *rest = shlex.split(command, comments=True)[1:]
    verb = f"{verb} {rest[0]}" if verb in GROUPS else verb
    flags = {word for word in rest if word.startswith("--")}
    assert flags <= {*FLAGS[verb], "--config", "--help"}


def test_the_readme_shows_commands():
    assert {command.split()[1] for command in COMMANDS} >= {"build", "train", "tag", "cross-validate"}


def test_every_make_target_exists():
    made = set(re.findall(r"^(\w+):", Path("Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "bench", "up"} <= TARGETS <= made


def test_the_settings_file_is_one():
    text = README.partition("    # run.toml\n")[2].partition("\n\n")[0]
    settings = BuildSettings.model_validate(tomllib.loads("\n".join(line[4:] for line in text.splitlines())))
    assert settings.spectrogram.encoding == "uint8"
    assert settings.spectrogram.mel.bands == 96


def test_the_python_draws_a_spectrogram_without_our_code(tmp_path):
    settings = SpectrogramSettings()
    root = str(tmp_path / "data" / "demo" / "store")
    tracks = [
        Track(f"20000{i}", str(Path(f"tests/data/demo_music/fma_small/200/20000{i}.mp3").absolute()))
        for i in (1, 2)
    ]
    built = build_shard(tracks, settings=settings, limits=LimitSettings(), root=root)
    publish(
        root,
        parent=None,
        shards=[built.shard.name],
        index=built.index,
        catalogue=put_catalogue(root, built.index.select(["track_id"])),
        recipe=settings.recipe(),
        settings={},
    )
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    watch = "import sys; assert not {'store', 'preprocessing', 'training', 'flows'} & set(sys.modules)"
    environment = {"MPLBACKEND": "agg", "MPLCONFIGDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", f"{code}\n{watch}"], cwd=tmp_path, check=True, env=environment)
    assert (tmp_path / "spectrogram.png").stat().st_size > 10_000
