"""`spectrogram-one serve` as a person starts it, and requests to the API of its Prefect server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import end_group, start_in_background, start_in_foreground
from tests.support.waiting import wait_for

COMMAND = str(Path(sys.executable).with_name("spectrogram-one"))
FLOWS = (
    "build-dataset",
    "train-model",
    "tag-catalogue",
    "undo-tagging",
    "retrain-nightly",
    "cross-validate",
    "run-experiments",
    "prune-prefect",
)


@dataclass(frozen=True)
class Served:
    """A `spectrogram-one serve` that runs."""

    process: "subprocess.Popen[bytes]"
    api_url: str
    log: Path

    @property
    def url(self) -> str:
        return self.api_url.removesuffix("/api")


@contextmanager
def serving(home: Path, port: int, *, in_background: bool = False, **variables: str) -> Iterator[Served]:
    """Start it as a terminal does, Prefect never used before; wait for its deployments; press Ctrl-C in the end.

    In the background of a shell that is not interactive it ignores SIGINT, and is ended by SIGTERM.
    """
    log = home / "serve.log"
    start = start_in_background if in_background else start_in_foreground
    with log.open("wb") as file:
        process = start(
            [COMMAND, "serve", f"--port={port}"],
            env=clean_environment(home) | variables,
            stdout=file,
            stderr=file,
        )
    served = Served(process, variables.get("PREFECT_API_URL", f"http://127.0.0.1:{port}/api"), log)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return b"Prefect UI" in log.read_bytes() and set(FLOWS) <= set(deployments(served))

    try:
        wait_for(is_ready, every_s=0.3)
        yield served
    finally:
        end_group(process, signal.SIGTERM if in_background else signal.SIGINT)


def clean_environment(home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | {"PREFECT_HOME": str(home)}


def ask(served: Served, path: str, wanted: dict[str, Any] | None = None, *, method: str = "") -> Any:
    """Ask Prefect's API: GET, or POST what is wanted."""
    method = method or ("GET" if wanted is None else "POST")
    response = _client().request(method, f"{served.api_url}/{path}", json=wanted)
    for _ in range(5):  # "database is locked": Prefect's own client asks again, too
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(1)
        response = _client().request(method, f"{served.api_url}/{path}", json=wanted)
    response.raise_for_status()
    return response.json() if response.content else None


@cache
def _client() -> httpx.Client:
    """Return one client for all requests: to make one reads all certificates, 25 ms of CPU."""
    return httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


def deployments(served: Served) -> dict[str, Any]:
    return {each["name"]: each for each in ask(served, "deployments/filter", {"limit": 200})}


def submit(served: Served, flow: str, settings: dict[str, Any]) -> str:
    """Submit a run of a flow; give its id."""
    wanted = {"parameters": {"settings": settings}, "state": {"type": "SCHEDULED"}}
    return ask(served, f"deployments/{deployments(served)[flow]['id']}/create_flow_run", wanted)["id"]


def started_runs(served: Served) -> dict[str, Any]:
    """Return the runs by id that have started: schedules make others ahead of their time."""
    found = ask(served, "flow_runs/filter", {"flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}}})
    return {each["id"]: each for each in found}


def end_of(served: Served, run: str) -> dict[str, Any]:
    """Wait until a run ended; give its last state."""

    def look():
        state = ask(served, f"flow_runs/{run}")["state"]
        return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return wait_for(look, every_s=0.5)


def artifacts(served: Served, run: str) -> dict[str, Any]:
    found = ask(served, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    return {each["key"]: each for each in found if each["key"]}
