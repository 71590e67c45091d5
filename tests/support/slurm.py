"""A SLURM cluster of one node on this machine: munged, slurmctld and slurmd on loopback, in a folder of their own."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import free_port
from tests.support.waiting import wait_for

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """
ClusterName=spo{pid}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_mib} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def unavailable_reason() -> str:
    """Return why SLURM cannot run here; "" if it can."""
    missing = [name for name in (*DAEMONS, "sbatch", "mungekey") if not _find(name)]
    if missing:
        return f"{', '.join(missing)}: not installed (slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@contextmanager
def slurm_cluster(folder: Path, *, cores: int = 2, memory_mib: int = 4_000) -> Iterator[dict[str, str]]:
    """Start the daemons, yield the environment of SLURM's commands, and end all jobs and daemons."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            pid=os.getpid(),
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            controller_port=free_port(),
            node_port=free_port(),
            cores=cores,
            memory_mib=memory_mib,
        )
    )
    started: list[subprocess.Popen[bytes]] = []
    try:
        key, munge_socket = folder / "munge.key", folder / "munge.socket"
        subprocess.run([_find("mungekey"), "--create", f"--keyfile={key}"], check=True)
        names = [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
        options = ["--foreground", "--force", f"--socket={munge_socket}", f"--key-file={key}", *names]
        started.append(_start(["munged", *options], folder, environment))
        wait_for(munge_socket.exists, within_s=30)
        started.append(_start(["slurmctld", "-D", "-i"], folder, environment))
        started.append(_start(["slurmd", "-D"], folder, environment))
        wait_for(lambda: _nodes(environment) == "idle", within_s=60)
        yield environment
    finally:
        if len(started) == len(DAEMONS):
            _end_jobs(environment)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def list_jobs(environment: dict[str, str]) -> list[str]:
    """List the jobs that wait or run, each with its state."""
    return _ask(["squeue", "--noheader", "--format=%i %T"], environment).splitlines()


def _end_jobs(environment: dict[str, str]) -> None:
    if list_jobs(environment):
        _ask(["scancel", "--user=root"], environment)
        wait_for(lambda: not list_jobs(environment), within_s=60)


def _nodes(environment: dict[str, str]) -> str:
    return _ask(["sinfo", "--noheader", "--format=%T"], environment).strip()


def _ask(command: list[str], environment: dict[str, str]) -> str:
    asked = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    return asked.stdout


def _find(name: str) -> str:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""


def _start(command: list[str], folder: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    with (folder / f"{command[0]}.out").open("wb") as out:
        return subprocess.Popen(
            [_find(command[0]), *command[1:]], env=os.environ | environment, stdout=out, stderr=out
        )
