"""The torchrun agent of one training host: the body of a Dask task that holds that host's resource."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import psutil
from distributed import get_worker

from flows.security.ports import find_free_port
from preprocessing.child_processes import die_with_parent
from store.errors import BadInput, SpectrogramOneError, TrainingStopped

Event = dict[str, Any]
PROCESSES_WITHOUT_GPU = 2
AGENT_POLL_INTERVAL_S = 0.5  # how often an agent checks whether its task was cancelled
GRACE_S = 5.0  # between asking processes to end and killing them
# The errors that a rank may report, by the kind in its event: see training/__main__.py.
RANK_ERRORS = {error.__name__: error for error in (BadInput, TrainingStopped)}


@dataclass(frozen=True)
class AgentConfig:
    """The arguments of one torchrun agent."""

    run_id: str
    folder: str
    host: str
    rendezvous: str
    is_first: bool
    hosts: int
    processes: int
    max_restarts: int


@dataclass(frozen=True)
class AgentResult:
    """The end of an agent: its exit status, the error that a rank reported, and its last lines of output."""

    host: str
    status: int
    error: SpectrogramOneError | None
    last_lines: list[str]


def run_agent(agent: AgentConfig) -> AgentResult:
    """Run torchrun until it ends, or until this Dask task is cancelled.

    Each line of JSON that a rank prints becomes a Dask event, under the run's name. Each other
    line that a rank or torchrun writes becomes an event "log".
    """
    worker = get_worker()
    task = str(worker.get_current_task())
    lines: queue.Queue[str] = queue.Queue()
    last_lines: deque[str] = deque(maxlen=30)
    process = subprocess.Popen(
        _command(agent),
        env=process_environment(agent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [_read(stream, lines.put) for stream in (process.stdout, process.stderr)]
    try:
        error = _forward_events(
            process, lines, last_lines, lambda event: worker.log_event(agent.run_id, event), task
        )
    finally:
        _end(process)
    for reader in readers:
        reader.join(GRACE_S)
    return AgentResult(agent.host, process.returncode, error, list(last_lines))


def default_process_count() -> int:
    """Return the number of processes for this host: one per GPU that we may use, or two without a GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # how SLURM and others assign GPUs to a job
    gpus = _gpus() if visible is None else len([gpu for gpu in visible.split(",") if gpu.strip()])
    return gpus or PROCESSES_WITHOUT_GPU


def find_port(port: int) -> int | None:
    """Return `port`, or any free one for 0; None if it cannot be used."""
    try:
        return find_free_port("", port)
    except OSError:
        return None


def _forward_events(
    process: "subprocess.Popen[str]",
    lines: "queue.Queue[str]",
    last_lines: "deque[str]",
    forward: Callable[[Event], None],
    task: str,
) -> SpectrogramOneError | None:
    """Forward events until the process ends, a rank reports an error (return it), or the task is cancelled."""
    checked = time.monotonic()
    while True:
        ended = process.poll() is not None
        if time.monotonic() - checked > AGENT_POLL_INTERVAL_S:
            checked = time.monotonic()
            if not _is_still_assigned(task):
                return None
        try:
            line = lines.get(timeout=AGENT_POLL_INTERVAL_S)
        except queue.Empty:
            if ended:
                return None
            continue
        event = parse_event(line)
        if event["event"] == "error":
            return RANK_ERRORS[event["kind"]](event["message"])
        if event["event"] == "log":
            last_lines.append(line)
        forward(event)


def parse_event(line: str) -> Event:
    """Return the event that a rank printed; for any other line, an event "log"."""
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and "event" in event:
            return event
    return {"event": "log", "line": line}


def _is_still_assigned(task: str) -> bool:
    """Return whether the scheduler still waits for this task: cancelling does not stop a running one."""
    state = get_worker().state.tasks.get(task)
    return state is not None and state.state in ("executing", "long-running")


def _command(agent: AgentConfig) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={agent.hosts}",
        f"--nproc-per-node={agent.processes}",
        f"--max-restarts={agent.max_restarts}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={agent.rendezvous}",
        f"--rdzv-id={agent.run_id}",
        f"--rdzv-conf=is_host={int(agent.is_first)}",
        f"--local-addr={agent.host}",
        "-m",
        "training",
        agent.folder,
    ]


def _gpus() -> int:
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return 0
    return len(listed.stdout.splitlines())


def process_environment(agent: AgentConfig) -> dict[str, str]:
    """Return the environment of the processes of this host."""
    interface = _interface_of(agent.host)
    return {
        # How long a thread of OpenMP that waits for others keeps its core. With its default of 300,000, two threads
        # beside one other busy process train at a fifth of their speed.
        "GOMP_SPINCOUNT": "10000",
        **os.environ,
        # Without this the first restart fails, and with two ranks per host all restarts are used up.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "OMP_NUM_THREADS": "1",  # each rank sets its own number of threads
        **({"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}),
    }


def _interface_of(host: str) -> str | None:
    """Return the network interface that has an address: gloo would guess, and guess wrong at times."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == host for address in addresses):
            return str(name)
    return None


def _read(stream: IO[str], put: Callable[[str], None]) -> threading.Thread:
    def read() -> None:
        for line in stream:
            put(line.rstrip("\n"))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _end(process: "subprocess.Popen[str]") -> None:
    """Ask an agent and its ranks to end, and kill what does not."""
    if process.poll() is not None:
        return
    ranks = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for rank in ranks:
        with suppress(psutil.NoSuchProcess):
            rank.kill()
