"""Leases outlive every Prefect server that is started by this project, or by what `deploy/` describes."""

import asyncio
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from flows.services.prefect_server import LEASES

((NAME, MODULE),) = LEASES.items()


def compose_value() -> str:
    services = yaml.safe_load(Path("deploy/compose.yaml").read_text())["services"]
    return services["prefect-server"]["environment"][NAME]


def kubernetes_value() -> str:
    documents = yaml.safe_load_all(Path("deploy/kubernetes/prefect-server.yaml").read_text())
    (container,) = next(documents)["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value") for each in container["env"]}[NAME]


def systemd_value() -> str:
    lines = Path("deploy/systemd/spectrogram-one-prefect.service").read_text().splitlines()
    (value,) = [it.rpartition("=")[2] for it in lines if it.startswith(f"Environment={NAME}=")]
    return value


@pytest.mark.parametrize("value", [compose_value, kubernetes_value, systemd_value])
def test_every_server_of_deploy_keeps_its_leases_on_disk(value):
    assert value() == MODULE


def test_a_lease_is_a_file(tmp_path):
    storage = import_module(MODULE).ConcurrencyLeaseStorage(tmp_path)
    lease = asyncio.run(storage.create_lease([uuid4()], timedelta(seconds=60)))
    assert (tmp_path / f"{lease.id}.json").is_file()
