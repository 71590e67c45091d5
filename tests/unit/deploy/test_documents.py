"""What deploy/*.md and the files beside them say of our command line, against the flags and commands that exist."""

import json
import re
from pathlib import Path

import pytest

COMMANDS = json.loads(Path("tests/golden/command_line.json").read_text())
FLAGS = {flag for flags in COMMANDS.values() for flag in flags}
DOCUMENTS = sorted(Path("deploy").glob("*.md"))
COMMAND = re.compile(r"(?:^|`)spectrogram-one ([a-z-]+)(?: ([a-z-]+))?", re.MULTILINE)
OF_OTHERS = {"--profile", "--resources", "--gres"}  # Compose, Dask, SLURM


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_our_flags_exist(path):
    named = set(re.findall(r"`(--[a-z][\w.-]+)", path.read_text()))
    named |= set(re.findall(r" (--(?:cluster|hosts|training|store|models)[\w.-]*)", path.read_text()))
    assert not {flag for flag in named if not flag.endswith(".")} - FLAGS - OF_OTHERS


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_our_commands_exist(path):
    for verb, second in COMMAND.findall(path.read_text()):
        assert verb in COMMANDS or f"{verb} {second}" in COMMANDS, verb
