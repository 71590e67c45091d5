"""Training on several hosts: agents are placed by Dask, and placed anew on what is left when a host is lost.

Dask places the agents and carries their events; torchrun's own rendezvous joins the ranks, and
torchrun starts lost processes again. A lost host, or a silent run, ends all agents: the run then
goes on from its last checkpoint, on the hosts there are.
"""

import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from distributed import Client, Future
from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

from flows.cluster.client import TRAINING_RESOURCE
from flows.cluster.host_versions import check_same_versions, read_versions
from flows.cluster.settings import HostSettings
from flows.cluster.training_agent import (
    AGENT_POLL_INTERVAL_S,
    AgentConfig,
    AgentResult,
    Event,
    default_process_count,
    find_port,
    run_agent,
)
from store.errors import BadInput, ServiceUnavailable, TrainingStopped

HOST_CHECK_INTERVAL_S = 2.0
# torchrun notices a silent process after `stall_timeout_s`, and needs half a minute to end it and to start anew.
RESTART_ALLOWANCE_S = 90.0
PORT_TIMEOUT_S = 15.0  # an agent that is ended holds its port a little longer
RESUME = "run the same command again to go on from the last checkpoint"
LOST_HOST_TIMEOUT_S = (
    45.0  # Dask notices a cut link after half a minute; the ranks of other hosts end before that
)


@dataclass(frozen=True)
class TrainingHost:
    """A host, and the Dask worker on it that holds the training resource."""

    name: str
    worker: str


def train_on_hosts(
    client: Client,
    folder: str,
    settings: HostSettings,
    *,
    micro_batches: int,
    stall_timeout_s: float,
    on_event: Callable[[Event], None],
) -> None:
    """Train the run in `folder` on the hosts that have the training resource, and wait for its end.

    `micro_batches` is how many processes can share a step at most; a run that tells nothing for longer than
    `stall_timeout_s` and a restart is taken for lost. `on_event` is called with each event, in the caller's thread.

    Raises: ServiceUnavailable if there are too few hosts; BadInput with what a rank found wrong;
            TrainingStopped if the run diverged, or all restarts are used up.
    """
    if micro_batches < settings.min_hosts:
        raise BadInput(
            f"{settings.min_hosts} hosts (hosts.min_hosts), but a step has {micro_batches} micro-batches (batch_size / "
            "micro_batch_size); raise training.batch_size, or lower training.micro_batch_size"
        )
    for restarts_left in range(settings.max_restarts, -1, -1):
        hosts = wait_for_hosts(client, settings)[:micro_batches]
        agents = _prepare(client, hosts, folder, settings, micro_batches, on_event)
        loss = _train_once(client, hosts, agents, stall_timeout_s + RESTART_ALLOWANCE_S, on_event)
        if loss is None:
            return
        if not restarts_left:
            raise TrainingStopped(
                f"{loss}; all {settings.max_restarts} restarts are used up (hosts.max_restarts); {RESUME}"
            )
        on_event(
            {"event": "notice", "message": f"{loss}; going on from the last checkpoint with what is left"}
        )


def wait_for_hosts(client: Client, settings: HostSettings) -> list[TrainingHost]:
    """List the hosts to train on. Raises: ServiceUnavailable if in time there are fewer than `min_hosts`."""
    until = time.monotonic() + settings.wait_s
    while len(hosts := find_hosts(client)) < settings.min_hosts:
        if time.monotonic() >= until:
            workers = len(_workers(client))
            raise ServiceUnavailable(
                f"{len(hosts)} training hosts of {settings.min_hosts} (hosts.min_hosts): of {workers} Dask workers, "
                f"those on {len(hosts)} hosts have the resource {TRAINING_RESOURCE}; start one a host with "
                f"`dask worker ... --resources {TRAINING_RESOURCE}=1`, or lower min_hosts"
            )
        time.sleep(AGENT_POLL_INTERVAL_S)
    return hosts[: settings.max_hosts or None]


def find_hosts(client: Client) -> list[TrainingHost]:
    """List the hosts that have the training resource, one worker each, and that answer; in order of names."""
    by_name = {
        worker["host"]: TrainingHost(worker["host"], address)
        for address, worker in sorted(_workers(client).items())
        if worker["resources"].get(TRAINING_RESOURCE, 0) >= 1
    }
    found = [by_name[name] for name in sorted(by_name)]
    # Anything that all Pythons have: what is wrong with our code there, is told later.
    pids = client.run(os.getpid, workers=[host.worker for host in found], on_error="return") if found else {}
    return [host for host in found if isinstance(pids.get(host.worker), int)]


def _workers(client: Client) -> dict[str, dict]:  # type: ignore[type-arg]
    workers: dict[str, dict] = client.scheduler_info(n_workers=-1)["workers"]  # type: ignore[type-arg]
    return workers


def _prepare(
    client: Client,
    hosts: list[TrainingHost],
    folder: str,
    settings: HostSettings,
    micro_batches: int,
    on_event: Callable[[Event], None],
) -> list[AgentConfig]:
    """Make what each host's agent must know. Raises: BadInput if hosts differ, or the port is taken."""
    workers = [host.worker for host in hosts]
    versions = client.run(read_versions, workers=workers, on_error="return")
    check_same_versions(read_versions(), {host.name: versions[host.worker] for host in hosts})
    offered = settings.processes_per_host or min(client.run(default_process_count, workers=workers).values())
    if settings.processes_per_host and len(hosts) * offered > micro_batches:
        raise BadInput(
            f"{len(hosts)} hosts with {offered} processes each, but a step has {micro_batches} "
            "micro-batches (batch_size / micro_batch_size); raise batch_size, lower micro_batch_size, or "
            "hosts.processes_per_host"
        )
    processes = min(offered, micro_batches // len(hosts))
    if processes < offered:
        message = (
            f"{processes} processes on each host, where {offered} could run: a step has {micro_batches} micro-batches "
            f"for {len(hosts)} hosts; raise training.batch_size, or lower training.micro_batch_size, to use all"
        )
        on_event({"event": "notice", "message": message})
    first = hosts[0]
    port = _find_port(client, first, settings.port)
    run_id = f"training-{uuid4().hex[:8]}"
    return [
        AgentConfig(
            run_id=run_id,
            folder=folder,
            host=host.name,
            rendezvous=f"{first.name}:{port}",
            is_first=host == first,
            hosts=len(hosts),
            processes=processes,
            max_restarts=settings.max_restarts,
        )
        for host in hosts
    ]


def _find_port(client: Client, host: TrainingHost, wanted: int) -> int:
    """Find the port to meet at. Raises: BadInput if the one that is wanted stays taken."""
    until = time.monotonic() + PORT_TIMEOUT_S
    while (port := client.run(find_port, wanted, workers=[host.worker])[host.worker]) is None:
        if time.monotonic() > until:
            raise BadInput(
                f"training host {host.name}: port {wanted} is taken; free it, or choose another "
                "with hosts.port (0 for any free one)"
            )
        time.sleep(AGENT_POLL_INTERVAL_S)
    return int(port)


def _train_once(
    client: Client,
    hosts: list[TrainingHost],
    agents: list[AgentConfig],
    silence_s: float,
    on_event: Callable[[Event], None],
) -> str | None:
    """Run the agents to their end; give None, or what was lost. Whatever happens, none of them runs on."""
    run_id = agents[0].run_id
    events: queue.Queue[Event] = queue.Queue()
    client.subscribe_topic(run_id, lambda stamped: events.put(stamped[1]))
    running = [
        client.submit(
            run_agent, agent, workers=[host.worker], resources={TRAINING_RESOURCE: 1}, pure=False, retries=0
        )
        for host, agent in zip(hosts, agents, strict=True)
    ]
    try:
        return _follow(client, hosts, running, events, silence_s, on_event)
    finally:
        client.cancel(running, force=True)
        client.unsubscribe_topic(run_id)


def _follow(
    client: Client,
    hosts: list[TrainingHost],
    running: "list[Future[AgentResult]]",
    events: "queue.Queue[Event]",
    silence_s: float,
    on_event: Callable[[Event], None],
) -> str | None:
    """Pass events on until all agents ended, or a host is lost.

    Raises: BadInput with what a rank found wrong; TrainingStopped if torchrun gave up, though no host was lost.
    """
    heard = looked = time.monotonic()
    failed_at: float | None = None
    while True:
        endings = [future.result() for future in running if _has_ended(future)]
        over = len(endings) == len(running)
        try:
            on_event(events.get(timeout=AGENT_POLL_INTERVAL_S))
            heard, all_heard = time.monotonic(), False
        except queue.Empty:
            all_heard = True
        now = time.monotonic()
        failed = _failed_of(endings)
        if over and not failed and all_heard:
            return None
        if now - looked > HOST_CHECK_INTERVAL_S:
            looked, there = now, _workers(client)
            gone = [host.name for host in hosts if host.worker not in there]
            if gone:
                return f"training host {gone[0]} was lost"
        if failed:
            failed_at = failed_at or now
            if len(hosts) == 1 or now - failed_at > LOST_HOST_TIMEOUT_S:
                raise TrainingStopped(_last_words(failed[0]))
        elif now - heard > silence_s:
            return f"nothing was heard of the training for {silence_s:.0f} s"


def _last_words(ending: AgentResult) -> str:
    errors = [line for line in ending.last_lines if "Error" in line] or ending.last_lines or ["nothing"]
    return (
        f"torchrun on {ending.host} ended with status {ending.status}, all its restarts used up (hosts.max_restarts); "
        f"it wrote: {errors[-1].strip()}; the log of the run has the rest; {RESUME}"
    )


def _has_ended(future: "Future[AgentResult]") -> bool:
    """Say whether an agent told how it ended; one whose worker died did not, and that worker is looked for."""
    if future.status == "error" and isinstance(
        future.exception(), KilledWorker | NoWorkerError | NoValidWorkerError
    ):
        return False
    return bool(future.done())


def _failed_of(endings: list[AgentResult]) -> list[AgentResult]:
    """Return those that failed. Raises: the error that a rank reported."""
    for ending in endings:
        if ending.error is not None:
            raise ending.error
    return [ending for ending in endings if ending.status != 0]
