"""Whether a command's flows are recorded by Prefect: with `--prefect`, or where a server is configured."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.reporting.observation import observed
from flows.services.environment import make_prefect_home

asked_for: ContextVar[bool] = ContextVar("asked_for", default=False)  # the flag --prefect


def is_recorded() -> bool:
    """Return whether Prefect records what this command runs."""
    return asked_for.get() or _is_server_configured()


@contextmanager
def recorded() -> Iterator[None]:
    """Use the configured Prefect server, or start one for as long as the block lasts, if flows are recorded.

    Raises: ServiceUnavailable if no server responds, or the server is lost within the block.
    """
    if not is_recorded():
        yield
        return
    make_prefect_home()
    from flows.services.prefect_server import prefect_server
    from flows.services.server_check import naming_lost_server

    with prefect_server() as api_url, naming_lost_server(api_url):
        yield


def run_flow(name: str, settings: BaseModel) -> Any:
    """Run a flow by its name, as a Prefect flow run if it is recorded; return its summary."""
    with recorded():
        if is_recorded():
            return getattr(import_module("flows.prefect_flows"), name)(settings)
        with observed(name):
            return getattr(import_module(f"flows.{name}"), name)(settings)


def _is_server_configured() -> bool:
    """Look for a URL in the environment and in Prefect's profiles; import Prefect only if there may be one."""
    if "PREFECT_API_URL" in os.environ:
        return bool(os.environ["PREFECT_API_URL"])
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    if not (profiles.is_file() and "PREFECT_API_URL" in profiles.read_text(encoding="utf-8")):
        return False
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)
