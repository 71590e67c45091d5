"""One torchrun agent per training host, run as a Dask task that holds that host's resource.

Dask places the agents and carries their events; torchrun's own rendezvous joins the ranks.
"""

import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any
from uuid import uuid4

import psutil
from distributed import Client, Future, get_worker
from pydantic import BaseModel, Field

from flows.cluster import TRAINING_RESOURCE
from preprocessing.child_processes import die_with_parent
from store.errors import BadInput

Event = dict[str, Any]
PROCESSES_WITHOUT_GPU = 2
LOOK_EVERY_S = 0.5  # how often an agent looks whether it is still wanted
GRACE_S = 10.0  # between asking processes to end and killing them


class HostSettings(BaseModel, frozen=True, extra="forbid"):
    """On which hosts a network is trained, with how many processes."""

    max_hosts: int = Field(0, ge=0, description="Use so many training hosts at most; 0 for all there are")
    processes_per_host: int = Field(
        0, ge=0, le=64, description="Processes on each host; 0 for one a GPU, or two where there is none"
    )
    max_restarts: int = Field(2, ge=0, description="How often lost processes are started again")


@dataclass(frozen=True)
class Agent:
    """What one torchrun agent must know."""

    run_id: str
    folder: str
    host: str
    rendezvous: str
    is_first: bool
    hosts: int
    processes: int
    max_restarts: int


@dataclass(frozen=True)
class Ending:
    """How an agent ended: its exit status, the error it told, and the last of what it wrote."""

    status: int
    error: str | None
    last_lines: list[str]


def train_on_hosts(
    client: Client, folder: str, settings: HostSettings, groups: int, on_event: Callable[[Event], None]
) -> None:
    """Train the run in `folder` on the hosts that have the training resource, and wait for its end.

    `groups` is what a step can be shared by: the number of processes divides it. `on_event` is
    called with each event of the first rank, in the caller's thread.

    Raises: BadInput if no host has the resource, or with what a rank found wrong;
            RuntimeError with the last lines of a crash.
    """
    hosts = find_hosts(client)[: settings.max_hosts or None][:groups]
    processes = settings.processes_per_host or share_groups(
        groups,
        hosts=len(hosts),
        offered=min(client.submit(usual_processes, workers=[host], pure=False).result() for host in hosts),
    )
    run_id = f"training-{uuid4().hex[:8]}"
    port = client.submit(free_port, workers=[hosts[0]], pure=False).result()
    events: queue.Queue[Event] = queue.Queue()
    client.subscribe_topic(run_id, lambda stamped: events.put(stamped[1]))
    agents = [
        Agent(
            run_id,
            folder,
            host,
            f"{hosts[0]}:{port}",
            host == hosts[0],
            len(hosts),
            processes,
            settings.max_restarts,
        )
        for host in hosts
    ]
    running = [
        client.submit(
            run_agent, agent, workers=[agent.host], resources={TRAINING_RESOURCE: 1}, pure=False, retries=1
        )
        for agent in agents
    ]
    try:
        _follow(running, events, on_event)
        _check_endings([future.result() for future in running])
    finally:
        client.cancel(running, force=True)
        client.unsubscribe_topic(run_id)


def find_hosts(client: Client) -> list[str]:
    """List the hosts with a worker that holds the training resource. Raises: BadInput if none does."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    hosts = sorted(
        {worker["host"] for worker in workers if worker["resources"].get(TRAINING_RESOURCE, 0) >= 1}
    )
    if not hosts:
        raise BadInput(
            f"none of the {len(workers)} Dask workers has the resource {TRAINING_RESOURCE}; "
            f"start one a host with `dask worker ... --resources {TRAINING_RESOURCE}=1`"
        )
    return hosts


def usual_processes() -> int:
    """Count the processes that suit this host: one for each GPU that we may use, or two without."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # how SLURM and others give a job its share
    gpus = _gpus() if visible is None else len([gpu for gpu in visible.split(",") if gpu.strip()])
    return gpus or PROCESSES_WITHOUT_GPU


def share_groups(groups: int, *, hosts: int, offered: int) -> int:
    """Choose how many processes a host runs, `offered` at most, so that all get equal parts of a step.

    Raises: BadInput if so many hosts cannot.
    """
    for processes in range(offered, 0, -1):
        if groups % (hosts * processes) == 0:
            return processes
    raise BadInput(
        f"a step of {groups} groups (batch_size / crops_at_once) cannot be shared by {hosts} hosts; "
        "choose a batch_size that can, or set max_hosts"
    )


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _follow(
    running: "list[Future[Ending]]", events: "queue.Queue[Event]", on_event: Callable[[Event], None]
) -> None:
    while True:
        over = all(future.done() for future in running)
        try:
            on_event(events.get(timeout=LOOK_EVERY_S))
        except queue.Empty:
            if over:
                return


def _check_endings(endings: list[Ending]) -> None:
    for ending in endings:
        if ending.error is not None:
            raise BadInput(ending.error)
    for ending in endings:
        if ending.status != 0:
            tail = "\n".join(ending.last_lines)
            raise RuntimeError(f"torchrun ended with status {ending.status}; the last it wrote:\n{tail}")


def run_agent(agent: Agent) -> Ending:
    """Run torchrun until it ends, or until Dask no longer wants this task. The body of a Dask task.

    Each line of JSON that a rank prints becomes a Dask event, under the run's name.
    """
    worker = get_worker()
    task = str(worker.get_current_task())
    lines: queue.Queue[str] = queue.Queue()
    last_lines: deque[str] = deque(maxlen=30)
    process = subprocess.Popen(
        _command(agent),
        env=_environment(agent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [_read(process.stdout, lines.put), _read(process.stderr, last_lines.append)]
    try:
        error = _pass_on(
            process, lines, last_lines, lambda event: worker.log_event(agent.run_id, event), task
        )
    finally:
        _end(process)
    for reader in readers:
        reader.join(GRACE_S)
    return Ending(process.returncode, error, list(last_lines))


def _pass_on(
    process: "subprocess.Popen[str]",
    lines: "queue.Queue[str]",
    last_lines: "deque[str]",
    tell: Callable[[Event], None],
    task: str,
) -> str | None:
    """Tell events until the process ends, a rank tells an error (give it), or nobody wants us."""
    while True:
        ended = process.poll() is not None
        try:
            line = lines.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            if ended or not _is_wanted(task):
                return None
            continue
        if not line.startswith("{"):
            last_lines.append(line)
            continue
        event = json.loads(line)
        if event["event"] == "error":
            return str(event["message"])
        tell(event)


def _is_wanted(task: str) -> bool:
    """Say whether the scheduler still waits for this task: cancelling does not stop a running one."""
    state = get_worker().state.tasks.get(task)
    return state is not None and state.state in ("executing", "long-running")


def _command(agent: Agent) -> list[str]:
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


def _environment(agent: Agent) -> dict[str, str]:
    interface = _interface_of(agent.host)
    return {
        **os.environ,
        # Without it the first restart fails, and two ranks a host use up all restarts.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "OMP_NUM_THREADS": "1",  # each rank sets its own number of threads
        **({"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}),
    }


def _interface_of(host: str) -> str | None:
    """Name the network interface that bears an address: gloo would guess, and guess wrong at times."""
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
