"""One run at a time for each store, folder of tagging runs and set of GPUs, whatever deployments the runs are of.

A deployment has a limit of its own, but a nightly run builds and trains, too. So a stage that writes holds a slot
of a global concurrency limit of the Prefect server, named after what it writes. A slot is leased: one whose holder was
killed is free again after `LEASE_S`.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

from flows.reporting.stage import in_flow_run, run_logger

LEASE_S = 60.0  # renewed while the block runs


@contextmanager
def exclusive(kind: str, what: str) -> Iterator[None]:
    """Wait until no other flow run holds `what`, and hold it within the block. Outside of Prefect nothing is held.

    `what` is an absolute path, a URL or an address.
    """
    if not in_flow_run():
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency

    name = limit_name(kind, what)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    run_logger().info("waiting for %s", name)
    with concurrency(name, lease_duration=LEASE_S, strict=True):
        run_logger().info("holding %s", name)
        yield


def limit_name(kind: str, what: str) -> str:
    """Return the name of a limit: readable, without the letters that Prefect forbids, and one for each `what`."""
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", what)[-60:].strip("-")
    return " ".join(it for it in (kind, readable, digest) if it)
