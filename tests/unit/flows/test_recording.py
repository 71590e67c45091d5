"""Whether a command is recorded by Prefect: by its flag, or because a server is configured."""

import subprocess
import sys

import pytest

from flows import recording

PROFILES = (
    'active = "{active}"\n[profiles.plain]\n[profiles.remote]\nPREFECT_API_URL = "http://10.0.0.1:4200/api"\n'
)


@pytest.fixture(autouse=True)
def no_server(monkeypatch, tmp_path):
    """Configure no server: a home of its own without profiles, and no URL in the environment."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for name in ("PREFECT_API_URL", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_a_command_is_not_recorded_by_default():
    assert not recording.is_recorded()


def test_the_flag_records():
    token = recording.asked_for.set(True)
    try:
        assert recording.is_recorded()
    finally:
        recording.asked_for.reset(token)


def test_a_server_in_the_environment_records(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert recording.is_recorded()
    monkeypatch.setenv("PREFECT_API_URL", "")
    assert not recording.is_recorded()


@pytest.mark.parametrize(("active", "expected"), [("remote", "True"), ("plain", "False")])
def test_a_server_in_the_active_profile_records(active, expected, tmp_path, run_python):
    """In a process of its own, since Prefect reads the profiles when it is imported."""
    (tmp_path / "profiles.toml").write_text(PROFILES.format(active=active))
    script = "from flows import recording; print(recording.is_recorded())"
    assert run_python(script).splitlines() == [expected]


def test_profiles_without_a_server_import_no_prefect(tmp_path, run_python):
    (tmp_path / "profiles.toml").write_text('active = "plain"\n[profiles.plain]\n')
    script = (
        "import sys; from flows import recording; print(recording.is_recorded(), 'prefect' in sys.modules)"
    )
    assert run_python(script).splitlines() == ["False False"]


@pytest.fixture
def run_python():
    """Return a function that runs a script in a process of its own, and returns its output."""

    def run_python(script):
        return subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout

    return run_python
