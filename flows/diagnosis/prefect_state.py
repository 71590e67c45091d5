"""Prefect on this machine: its database, and the server that is configured."""

import asyncio

from flows.diagnosis.findings import Finding, ok, problem, warning
from flows.security.urls import hide_password
from flows.services.prefect_database import (
    configured_url,
    describe_locked,
    describe_unknown,
    inspect_database,
    sqlite_path,
)
from flows.services.server_check import check_server, read_pools
from store.errors import SpectrogramOneError

LARGE_GIB = 1.0


def check_prefect_database() -> list[Finding]:
    """Judge the database that a server started here would use."""
    path = sqlite_path()
    if path is None:
        return [ok("database", f"{hide_password(configured_url() or '')}: checked by its server")]
    try:
        state = inspect_database(path)
    except SpectrogramOneError as why:
        return [problem("database", str(why), "")]
    except OSError as why:
        return [problem("database", f"{path} cannot be read ({why.strerror})", "give it to this user")]
    if state is None:
        return [ok("database", f"{path} does not exist yet; the first server makes it")]
    if not state.is_known:
        return [problem("database", f"{path}: {describe_unknown(state)}", "")]
    if state.is_locked:
        return [problem("database", f"{path}: {describe_locked()}", "")]
    size_gib = state.size_bytes / 2**30
    if size_gib > LARGE_GIB:
        return [
            warning("database", f"{path} has {size_gib:.1f} GiB", "remove old runs: `spectrogram-one prune`")
        ]
    return [ok("database", f"{path}, {state.size_bytes / 2**20:.0f} MiB, schema {state.revision}")]


def check_prefect_server(api_url: str | None) -> list[Finding]:
    """Judge the configured server: it responds, accepts the credentials, has workers for its pools."""
    if not api_url:
        return [ok("prefect", "no server configured; commands run without one")]
    try:
        version = check_server(api_url)
    except SpectrogramOneError as why:
        return [problem("prefect", str(why), "")]
    return [ok("prefect", f"{api_url} responds, Prefect {version}"), *_check_pools(asyncio.run(read_pools()))]


def _check_pools(pools: dict[str, int]) -> list[Finding]:
    return [
        warning(
            "pool",
            f"{name} has no worker that responds: runs submitted to it wait for ever",
            f"`prefect worker start --pool {name}` on the machine that is to run them",
        )
        for name, workers in pools.items()
        if not workers
    ]
