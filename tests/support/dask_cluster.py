"""A Dask scheduler and workers as an operator starts them: processes of their own, on hosts if need be."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.processes import free_port, is_listening
from tests.support.waiting import wait_for

DASK = str(Path(sys.executable).with_name("dask"))


@dataclass(frozen=True)
class Host:
    """A host to start workers on: this machine, or a network namespace of it."""

    address: str
    namespace: str = ""

    def command(self, *arguments: str) -> list[str]:
        return [*(["ip", "netns", "exec", self.namespace] if self.namespace else []), *arguments]


@contextmanager
def scheduler(address: str = "127.0.0.1") -> Iterator[str]:
    """Start a scheduler; give its URL."""
    port = free_port(address)
    with running([DASK, "scheduler", "--host", address, "--port", str(port), "--no-dashboard"]):
        wait_for(lambda: is_listening(port, address))
        yield f"tcp://{address}:{port}"


@contextmanager
def workers(url: str, hosts: Sequence[Host], folder: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Start a worker with the training resource on each host; they are killed in the end, with all they started."""
    with ExitStack() as stack:
        yield [stack.enter_context(worker(url, host, folder)) for host in hosts]


@contextmanager
def worker(url: str, host: Host, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    options = ["--host", host.address, "--nthreads", "1", "--resources", "GPU=1", "--no-dashboard"]
    command = [DASK, "worker", url, *options, "--local-directory", str(folder / host.address)]
    with running(host.command(*command)) as process:
        yield process


def list_rank_processes() -> list[psutil.Process]:
    """List the training processes of this machine, in whatever namespace, that descend from us."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            line = process.cmdline()
            if "training" in line and "torch.distributed.run" not in line:
                found.append(process)
    return found


@contextmanager
def running(command: list[str], **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command, with variables of its own in its environment; kill it and its children in the end."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **variables},
    )
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        process.wait()
