"""The units of deploy/systemd, by systemd's own tools: loadable, and sandboxed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path("deploy/systemd")
UNITS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".service", ".timer", ".slice"))
SERVICES = [name for name in UNITS if name.endswith(".service")]
INSTALLED = "/opt/spectrogram-one/.venv/bin"
MOST_EXPOSED = 20  # of 100, where 0 is sealed off; an unprotected service has 96


@pytest.fixture(scope="module")
def units(need, tmp_path_factory):
    """Return a folder with the units, their commands those of this environment."""
    need(shutil.which("systemd-analyze"), "the command systemd-analyze (systemd) is not installed")
    folder = tmp_path_factory.mktemp("units")
    for name in UNITS:
        text = (FOLDER / name).read_text().replace(INSTALLED, str(Path(sys.executable).parent))
        (folder / name.replace("@.", "@cpu.")).write_text(text)
    return folder


def analyze(units, *arguments):
    return subprocess.run(
        ["systemd-analyze", *arguments, "--no-pager"], cwd=units, capture_output=True, text=True, check=False
    )


def test_units_can_be_loaded(units):
    checked = analyze(
        units, "verify", "--man=no", "--recursive-errors=no", *(str(it) for it in units.iterdir())
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_services_are_sandboxed(units):
    services = sorted(str(path) for path in units.glob("*.service"))
    checked = analyze(units, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", *services)
    assert checked.returncode == 0, [line for line in checked.stdout.splitlines() if "exposure level" in line]


@pytest.mark.parametrize("name", SERVICES)
def test_services_run_as_a_user_of_their_own_within_limits_and_come_back(name):
    lines = (FOLDER / name).read_text().splitlines()
    for wanted in ("User=spectrogram-one", "UMask=0027", "Slice=spectrogram-one.slice"):
        assert wanted in lines
    for setting in ("Restart=", "RestartSec=", "TasksMax=", "TimeoutStopSec="):
        assert any(line.startswith(setting) for line in lines) or "Type=oneshot" in lines, setting


def test_the_server_copies_its_ui_where_its_user_may_write():
    """Beside the installation, Prefect's default, it may not: the server would respond 404 to a browser."""
    unit = (FOLDER / "spectrogram-one-prefect.service").read_text()
    assert "PREFECT_SERVER_UI_STATIC_DIRECTORY=/var/cache/spectrogram-one/" in unit
    image = Path("deploy/Dockerfile").read_text()
    assert "PREFECT_SERVER_UI_STATIC_DIRECTORY=/cache/" in image
    assert 'VOLUME ["/srv/spectrogram-one/data", "/cache"]' in image
