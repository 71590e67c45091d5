"""The files of deploy/slurm: what dask-jobqueue and bash make of them."""

import os
import re
import signal
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


def test_a_command_is_interrupted_before_the_time_limit(tmp_path):
    """SLURM sends INT to the batch file; the command then ends as after Ctrl-C, and the next one does not begin."""
    command = tmp_path / "spectrogram-one"
    command.write_text(
        "#!/usr/bin/env python3\nimport sys, time\n"
        "try:\n    print(sys.argv[1], flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
    )
    command.chmod(0o755)
    job = subprocess.Popen(
        ["bash", BATCH, "music"],
        env={**os.environ, "SPECTROGRAM_ONE_BIN": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert job.stdout.readline() == "build\n"
    job.send_signal(signal.SIGINT)
    assert job.communicate()[0] == "interrupted\n"
    assert job.returncode == 130


def test_the_batch_file_is_bash_and_its_flags_exist():
    subprocess.run(["bash", "-n", BATCH], check=True)
    flags = set(re.findall(r"--((?:cluster|hosts)[.\w-]+)", BATCH.read_text()))
    fields = {f"cluster.{name}" for name in ClusterSettings.model_fields}
    fields |= {f"cluster.slurm.{name}" for name in SlurmSettings.model_fields}
    fields |= {f"hosts.{name}" for name in HostSettings.model_fields}
    assert flags
    assert {flag.replace("-", "_") for flag in flags} <= fields
