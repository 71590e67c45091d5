"""The files of deploy/slurm: what dask-jobqueue and bash make of them."""

import re
import subprocess
from pathlib import Path

import yaml
from dask_jobqueue import SLURMCluster

from flows.cluster.settings import ClusterSettings, HostSettings, SlurmSettings

FOLDER = Path("deploy/slurm")
BATCH = FOLDER / "build-and-train.sbatch"


def test_every_key_is_one_of_dask_jobqueue():
    ours = yaml.safe_load((FOLDER / "jobqueue.yaml").read_text())["jobqueue"]["slurm"]
    known = yaml.safe_load(
        (Path(SLURMCluster.__init__.__globals__["__file__"]).parent / "jobqueue.yaml").read_text()
    )
    assert set(ours) <= set(known["jobqueue"]["slurm"])


def test_the_batch_file_is_bash_and_its_flags_exist():
    subprocess.run(["bash", "-n", BATCH], check=True)
    flags = set(re.findall(r"--((?:cluster|hosts)[.\w-]+)", BATCH.read_text()))
    fields = {f"cluster.{name}" for name in ClusterSettings.model_fields}
    fields |= {f"cluster.slurm.{name}" for name in SlurmSettings.model_fields}
    fields |= {f"hosts.{name}" for name in HostSettings.model_fields}
    assert flags
    assert {flag.replace("-", "_") for flag in flags} <= fields
