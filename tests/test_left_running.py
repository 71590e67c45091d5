"""A session that leaves a process running fails, names it and kills it; orphans too."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.processes import SESSION

LEAVING = """
import subprocess, sys

def test_child(tmp_path):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", "a child"])

def test_orphan(tmp_path):
    start = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]])"
    orphan = ["-c", "import time; time.sleep(1000)", "an orphan"]
    subprocess.run([sys.executable, "-c", start, *orphan], start_new_session=True, check=True)
"""
TIDY = """
import subprocess, sys

def test_tidy():
    subprocess.run([sys.executable, "-c", ""], check=True)
"""


def run_session(folder: Path, content: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest in a session of its own on a module of tests."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(content)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.support.leftovers",
        "-c",
        folder / "pytest.ini",
    ]
    environment = {name: value for name, value in os.environ.items() if name != SESSION}
    return subprocess.run(
        [*command, *options, folder / "test_it.py"],
        env={**environment, "PYTEST_ADDOPTS": "", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_left_running_fails_the_session(tmp_path):
    done = run_session(tmp_path, LEAVING, "-n", "1")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    _, found, lines = done.stdout.partition("left running, and killed")
    assert found
    named = [line for line in lines.splitlines() if "time.sleep(1000)" in line]
    assert sorted(line.rpartition(" a")[2] for line in named) == [" child", "n orphan"]
    assert not any(psutil.pid_exists(int(line.partition(":")[0])) for line in named)


def test_a_session_that_leaves_nothing_passes(tmp_path):
    done = run_session(tmp_path, TIDY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left running" not in done.stdout
