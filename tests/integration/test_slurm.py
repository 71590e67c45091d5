"""`--cluster.kind slurm` on a real SLURM of one node: jobs start with the work, speak TLS, and end with it."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from flows.cluster.client import open_cluster
from flows.cluster.fan_out import fan_out
from flows.cluster.settings import ClusterSettings, SlurmSettings
from store.errors import BadInput, ServiceUnavailable
from tests.support.prefect_ui import COMMAND
from tests.support.slurm import list_jobs, slurm_cluster, unavailable_reason
from tests.support.waiting import wait_for

MUSIC = Path(__file__).parents[1] / "data/demo_music"
JOB_FLAGS = {
    "--tracks-per-batch": "6",
    "--cluster.kind": "slurm",
    "--cluster.slurm.interface": "lo",
    "--cluster.slurm.cores": "1",
    "--cluster.memory-gib": "2",
    "--cluster.max-jobs": "2",
}
BUILD = [COMMAND, "build", str(MUSIC), *(word for flag in JOB_FLAGS.items() for word in flag)]


@pytest.fixture(scope="module")
def slurm(need, tmp_path_factory):
    why_not = unavailable_reason()
    need(not why_not, why_not)
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def settings(slurm, tmp_path, monkeypatch):
    """Return a function that makes settings for small jobs on this SLURM."""
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    )

    def make(timeout_s=120.0, memory_gib=1.0, **options):
        jobs = SlurmSettings(cores=1, interface="lo", folder=str(tmp_path / "shared"), **options)
        return ClusterSettings(
            kind="slurm", memory_gib=memory_gib, max_jobs=2, start_timeout_s=timeout_s, slurm=jobs
        )

    return make


def read_job_id(batch):
    from distributed import get_worker

    return os.environ["SLURM_JOB_ID"], get_worker().address.partition(":")[0], batch


def test_batches_run_in_jobs_that_end_with_the_block(slurm, settings, tmp_path):
    with open_cluster(settings()) as cluster:
        results = [result for _, result in fan_out(cluster, read_job_id, [[1], [2], [3]])]
        assert {job.split()[0] for job in list_jobs(slurm)} >= {job for job, _, _ in results}
    assert sorted(batch for _, _, batch in results) == [[1], [2], [3]]
    assert {protocol for _, protocol, _ in results} == {"tls"}
    wait_for(lambda: not list_jobs(slurm), within_s=30)
    kept = {path.name for path in (tmp_path / "shared").iterdir()}
    assert kept == {"logs"}, "keys of the run were left"


def test_a_job_that_slurm_refuses_is_one_line(settings):
    with (
        pytest.raises(BadInput, match=r"SLURM refuses the job \(.*invalid partition.*\)"),
        open_cluster(settings(partition="nowhere")) as cluster,
    ):
        _ = cluster.client


def test_jobs_that_stay_in_the_queue_are_named_with_slurms_reason(slurm, settings):
    held = subprocess.run(
        ["sbatch", "--parsable", "--mem=3500", "--output=/dev/null", "--wrap=sleep 300"],
        env=os.environ | slurm,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    try:
        with (
            pytest.raises(
                ServiceUnavailable, match=r"within 3 s .*job \d+: PENDING \((Resources|Priority|None)\)"
            ),
            open_cluster(settings(timeout_s=3)) as cluster,
        ):
            _ = cluster.client
    finally:
        subprocess.run(["scancel", held], env=os.environ | slurm, check=True)
    wait_for(lambda: not list_jobs(slurm), within_s=30)


@pytest.mark.soak
def test_the_demo_music_is_built_by_jobs(slurm, tmp_path):
    built = subprocess.run(
        BUILD, cwd=tmp_path, env=os.environ | slurm, capture_output=True, text=True, timeout=600, check=False
    )
    assert built.returncode == 0, built.stderr
    print(built.stdout, file=sys.stderr)
    assert "all files of the source (51): 48 with a spectrogram, 3 rejected" in built.stdout
    wait_for(lambda: not list_jobs(slurm), within_s=30)


@pytest.mark.soak
def test_jobs_of_a_killed_command_end_by_themselves(slurm, tmp_path):
    command = subprocess.Popen(BUILD, cwd=tmp_path, env=os.environ | slurm, stdout=subprocess.DEVNULL)
    wait_for(partial(any_is_running, slurm), within_s=120)
    command.send_signal(signal.SIGKILL)
    command.wait()
    wait_for(lambda: not list_jobs(slurm), within_s=180)


def any_is_running(slurm):
    return any("RUNNING" in job for job in list_jobs(slurm))
