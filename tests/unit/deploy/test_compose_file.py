"""deploy/compose.yaml against the schema of Compose files, and what it promises."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

COMPOSE = Path("deploy/compose.yaml")
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("spectrogram-one")]


def test_it_is_valid():
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(COMPOSE),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_the_environment_and_ports_are_on_loopback(name):
    service = SERVICES[name]
    for key, value in service.get("environment", {}).items():
        if any(word in key for word in ("PASSWORD", "AUTH", "SECRET")):
            assert value.startswith("${"), key
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_rights_and_a_check(name):
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "healthcheck" in service


@pytest.mark.parametrize("name", OURS)
def test_dask_speaks_tls(name):
    line = shlex.join(SERVICES[name]["command"])
    if line.startswith("dask scheduler"):
        assert "--protocol tls" in line
    if line.startswith("dask worker"):
        assert "tls://dask-scheduler:8786" in line
