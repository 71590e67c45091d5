"""deploy/compose.yaml as it runs, without a container engine: its commands, environments and checks, natively."""

import json
import shutil
from pathlib import Path

import pytest

from flows.security.certificates import make_certificates, write_dask_config
from tests.support import network_namespaces, postgres
from tests.support.compose import BIN, compose_project

MUSIC = Path(__file__).parents[1] / "data/demo_music"
SECRETS = {
    "POSTGRES_PASSWORD": "database-secret",
    "PREFECT_AUTH": "admin:api-secret",
    "OBJECT_STORE_PASSWORD": "object-store-secret",
}
MAKE_BUCKET = """
import boto3
boto3.client("s3").create_bucket(Bucket="music")
"""
COUNT_TRACKS = """
from store.reader import open_snapshot
print(open_snapshot("s3://music/store").tracks["status"].to_pylist().count("ok"))
"""


@pytest.fixture(scope="module")
def project(need):
    for why_not in (postgres.unavailable_reason(), network_namespaces.unavailable_reason()):
        if "not allowed" in why_not:
            pytest.skip(why_not)  # in CI too: what a machine forbids cannot be installed
        need(not why_not, why_not)
    with compose_project(SECRETS) as project:
        make_certificates(project.folder / "tls", ["cluster"], 30)
        write_dask_config(project.folder / "tls", "cluster", project.folder / "tls")
        project.start_postgres("postgres")
        # The store's own image is not to be had here; moto takes its place, at the same address.
        project.start("object-store", [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", "9000"])
        project.start("prefect-server")
        project.run_once("register")
        for name in ("dask-scheduler", "worker-cpu", "flows"):
            project.start(name)
        yield project


@pytest.mark.soak
def test_a_run_submitted_to_prefect_builds_into_the_object_store(project):
    environment = project.environment("flows")
    assert project.run([str(BIN / "python"), "-c", MAKE_BUCKET], env=environment).returncode == 0
    settings = {
        "source": str(MUSIC),
        "store": "s3://music/store",
        "cluster": {
            "kind": "scheduler",
            "scheduler": "tls://dask-scheduler:8786",
            "certificates": project.native("flows", "/run/tls"),
        },
    }
    submit = ["prefect", "deployment", "run", "build-dataset/build-dataset", "--watch"]
    ran = project.run(
        [str(BIN / submit[0]), *submit[1:], "--param", f"settings={json.dumps(settings)}"], env=environment
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counted = project.run([str(BIN / "python"), "-c", COUNT_TRACKS], env=environment)
    assert counted.stdout == "48\n", counted.stdout + counted.stderr


@pytest.mark.soak
def test_who_has_no_password_or_certificate_is_refused(project, tmp_path):
    environment = project.environment("flows")
    anonymous = {key: value for key, value in environment.items() if key != "PREFECT_API_AUTH_STRING"}
    listed = project.run([str(BIN / "prefect"), "deployment", "ls"], env=anonymous)
    assert listed.returncode != 0
    assert "401" in listed.stdout + listed.stderr
    make_certificates(tmp_path, ["cluster"], 30)  # by another authority
    connect = "from distributed import Client; Client('tls://dask-scheduler:8786', timeout=5)"
    for config in ("", str(write_dask_config(tmp_path, "cluster", tmp_path))):
        refused = project.run([str(BIN / "python"), "-c", connect], env=environment | {"DASK_CONFIG": config})
        assert refused.returncode != 0, config


@pytest.mark.soak
def test_no_secret_is_in_a_log(project):
    for name in project.running:
        shutil.copy(project.folder / name / "log", project.folder / f"{name}.copy")
        text = (project.folder / f"{name}.copy").read_text(errors="replace")
        assert not [secret for secret in SECRETS.values() if secret.rpartition(":")[2] in text], name
