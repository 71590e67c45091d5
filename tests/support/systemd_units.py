"""The commands of deploy/systemd, as systemd would start them."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path("deploy/systemd")
INSTALLED = "/opt/spectrogram-one/.venv/bin"
CACHE = "/var/cache/spectrogram-one"


def command_of(unit: str, environment: Mapping[str, str], specifiers: Mapping[str, str]) -> list[str]:
    """Return the command of a unit, with what its environment and systemd's specifiers (%H, %i) put into it."""
    (line,) = re.findall(r"^ExecStart=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)
    line = line.replace(INSTALLED, str(Path(sys.executable).parent)).replace(CACHE, environment["CACHE"])
    for name, value in specifiers.items():
        line = line.replace(f"%{name}", value)
    words: list[str] = []
    for word in shlex.split(line):
        if whole := re.fullmatch(r"\$(\w+)", word):
            words += environment[whole[1]].split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], word))
    return words
