"""Training on several hosts: one agent per host, started again on the remaining hosts when one is lost.

Dask starts the agents and carries their events; torchrun's own rendezvous joins the ranks, and
torchrun starts lost processes again. A lost host, or a run without events, ends all agents: the
run is then resumed from its last checkpoint, on the hosts that are there.
"""

import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from distributed import Client, Future
from distributed.comm.core import CommClosedError
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
from store.errors import BadInput, ServiceUnavailable, TrainingStopped, first_line

HOST_CHECK_INTERVAL_S = 2.0
# torchrun notices a stalled process after `stall_timeout_s`, and takes half a minute to end and restart it.
RESTART_ALLOWANCE_S = 90.0
PORT_TIMEOUT_S = 15.0  # the port of an agent that was ended stays in use a little longer
RESUME = "run the same command again to resume from the last checkpoint"
MORE_MICRO_BATCHES = "raise --training.batch-size, or lower --training.micro-batch-size"
# Dask notices a cut link after half a minute; the ranks of other hosts fail before that.
LOST_HOST_TIMEOUT_S = 45.0


@dataclass(frozen=True)
class TrainingHost:
    """A host, and the Dask worker on it that has the training resource."""

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
    """Train the run in `folder` on the hosts that have the training resource; return when it is finished.

    `micro_batches` is the most processes that can share a step; a run that reports nothing for `stall_timeout_s`
    and the time of a restart is considered lost. `on_event` is called with each event, in the caller's thread.

    Raises: ServiceUnavailable if there are too few hosts; BadInput as a rank reported it;
        TrainingStopped if the run diverged, or all restarts are used up; CommClosedError if the scheduler is gone.
    """
    if micro_batches < settings.min_hosts:
        raise BadInput(
            f"{settings.min_hosts} hosts (--hosts.min-hosts), but a step has {micro_batches} micro-batches; "
            f"{MORE_MICRO_BATCHES}"
        )
    for restarts_left in range(settings.max_restarts, -1, -1):
        hosts = wait_for_hosts(client, settings)[:micro_batches]
        agents = _prepare(client, hosts, folder, settings, micro_batches, on_event)
        lost = _train_once(client, hosts, agents, stall_timeout_s + RESTART_ALLOWANCE_S, on_event)
        if lost is None:
            return
        if not restarts_left:
            raise TrainingStopped(
                f"{lost}; all {settings.max_restarts} restarts are used up (--hosts.max-restarts); {RESUME}"
            )
        message = f"{lost}; resuming from the last checkpoint on the remaining hosts"
        on_event({"event": "notice", "message": message})


def wait_for_hosts(client: Client, settings: HostSettings) -> list[TrainingHost]:
    """List the hosts to train on. Raises: ServiceUnavailable if there are fewer than `min_hosts` after `wait_s`."""
    until = time.monotonic() + settings.wait_s
    while len(hosts := find_hosts(client)) < settings.min_hosts:
        if time.monotonic() >= until:
            workers = len(_workers(client))
            raise ServiceUnavailable(
                f"{len(hosts)} training hosts of {settings.min_hosts} (--hosts.min-hosts): of {workers} Dask workers, "
                f"those on {len(hosts)} hosts have the resource {TRAINING_RESOURCE}; start one per host with "
                f"`dask worker ... --resources {TRAINING_RESOURCE}=1`, or lower --hosts.min-hosts"
            )
        time.sleep(AGENT_POLL_INTERVAL_S)
    return hosts[: settings.max_hosts or None]


def find_hosts(client: Client) -> list[TrainingHost]:
    """List the hosts that have the training resource and respond, one worker each, sorted by name.

    Raises: CommClosedError if the scheduler is gone.
    """
    by_name = {
        worker["host"]: TrainingHost(worker["host"], address)
        for address, worker in sorted(_workers(client).items())
        if worker["resources"].get(TRAINING_RESOURCE, 0) >= 1
    }
    found = [by_name[name] for name in sorted(by_name)]
    # A function that every Python has: a host with other code of ours is reported later.
    pids = client.run(os.getpid, workers=[host.worker for host in found], on_error="return") if found else {}
    return [host for host in found if isinstance(pids.get(host.worker), int)]


def _workers(client: Client) -> dict[str, dict]:  # type: ignore[type-arg]
    # Not `scheduler_info`: what it fetched may be replaced, before it returns, by what the client
    # fetches every two seconds, which lists no worker.
    # A scheduler that is gone is a CommClosedError: `open_client` says what to do about it.
    scheduler = client.scheduler
    if scheduler is None:
        raise CommClosedError("the client is closed")
    try:
        identity = client.sync(scheduler.identity, n_workers=-1)
    except OSError as why:
        raise CommClosedError(first_line(why)) from None
    workers: dict[str, dict] = identity["workers"]  # type: ignore[type-arg]
    return workers


def _prepare(
    client: Client,
    hosts: list[TrainingHost],
    folder: str,
    settings: HostSettings,
    micro_batches: int,
    on_event: Callable[[Event], None],
) -> list[AgentConfig]:
    """Return the arguments of each host's agent. Raises: BadInput if hosts differ, or the port is in use."""
    workers = [host.worker for host in hosts]
    versions = client.run(read_versions, workers=workers, on_error="return")
    check_same_versions(read_versions(), {host.name: versions[host.worker] for host in hosts})
    processes = _choose_process_count(client, workers, settings, micro_batches, on_event)
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


def _choose_process_count(
    client: Client,
    workers: list[str],
    settings: HostSettings,
    micro_batches: int,
    on_event: Callable[[Event], None],
) -> int:
    """Choose the processes per host. Raises: BadInput if more were asked for than a step has micro-batches."""
    hosts = len(workers)
    offered = settings.processes_per_host or min(client.run(default_process_count, workers=workers).values())
    if settings.processes_per_host and hosts * offered > micro_batches:
        raise BadInput(
            f"{hosts} hosts with {offered} processes each (--hosts.processes-per-host), but a step has "
            f"{micro_batches} micro-batches; {MORE_MICRO_BATCHES}, or use fewer processes"
        )
    processes = min(offered, micro_batches // hosts)
    if processes < offered:
        message = (
            f"{processes} processes on each host, where {offered} could run: a step has {micro_batches} "
            f"micro-batches for {hosts} hosts; {MORE_MICRO_BATCHES}, to use all"
        )
        on_event({"event": "notice", "message": message})
    return processes


def _find_port(client: Client, host: TrainingHost, wanted: int) -> int:
    """Find the port of the rendezvous. Raises: BadInput if the port `wanted` stays in use."""
    until = time.monotonic() + PORT_TIMEOUT_S
    while (port := client.run(find_port, wanted, workers=[host.worker])[host.worker]) is None:
        if time.monotonic() > until:
            raise BadInput(
                f"training host {host.name}: port {wanted} is in use; free it, or choose another "
                "with --hosts.port (0 for any free one)"
            )
        time.sleep(AGENT_POLL_INTERVAL_S)
    return int(port)


def _train_once(
    client: Client,
    hosts: list[TrainingHost],
    agents: list[AgentConfig],
    silence_timeout_s: float,
    on_event: Callable[[Event], None],
) -> str | None:
    """Run the agents to their end; return None, or what was lost. Whatever happens, none of them keeps running."""
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
        return _follow(client, hosts, running, events, silence_timeout_s, on_event)
    finally:
        client.cancel(running, force=True)
        client.unsubscribe_topic(run_id)


def _follow(
    client: Client,
    hosts: list[TrainingHost],
    running: "list[Future[AgentResult]]",
    events: "queue.Queue[Event]",
    silence_timeout_s: float,
    on_event: Callable[[Event], None],
) -> str | None:
    """Pass events on until all agents ended (return None) or a host is lost (return a description).

    Raises: BadInput as a rank reported it; TrainingStopped if torchrun gave up, though no host was lost.
    """
    last_event = last_check = time.monotonic()
    failed_at: float | None = None
    while True:
        results = [future.result() for future in running if _has_ended(future)]
        try:
            on_event(events.get(timeout=AGENT_POLL_INTERVAL_S))
            last_event, is_drained = time.monotonic(), False
        except queue.Empty:
            is_drained = True
        now = time.monotonic()
        failed = _failed_of(results)
        if len(results) == len(running) and not failed and is_drained:
            return None
        if now - last_check > HOST_CHECK_INTERVAL_S:
            last_check, workers = now, _workers(client)
            lost = [host.name for host in hosts if host.worker not in workers]
            if lost:
                return f"training host {lost[0]} was lost"
        if failed:
            failed_at = failed_at or now
            if len(hosts) == 1 or now - failed_at > LOST_HOST_TIMEOUT_S:
                raise TrainingStopped(_describe_failure(failed[0]))
        elif now - last_event > silence_timeout_s:
            return f"the training reported nothing for {silence_timeout_s:.0f} s"


def _describe_failure(result: AgentResult) -> str:
    errors = [line for line in result.last_lines if "Error" in line] or result.last_lines or ["nothing"]
    return (
        f"torchrun on {result.host} ended with status {result.status}, all restarts used up "
        f"(--hosts.max-restarts); it wrote: {errors[-1].strip()}; the log of the run has the rest; {RESUME}"
    )


def _has_ended(future: "Future[AgentResult]") -> bool:
    """Return whether an agent returned a result; the worker of one that did not is found lost elsewhere."""
    if future.status == "error" and isinstance(
        future.exception(), KilledWorker | NoWorkerError | NoValidWorkerError
    ):
        return False
    return bool(future.done())


def _failed_of(results: list[AgentResult]) -> list[AgentResult]:
    """Return those that failed. Raises: the error that a rank reported."""
    for result in results:
        if result.error is not None:
            raise result.error
    return [result for result in results if result.status != 0]
