"""The stages of a flow: Prefect tasks inside a Prefect flow run, plain calls elsewhere.

Importing Prefect takes a second, and starting its server several. A command that is not recorded
needs neither.
"""

import logging
import sys
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Logger = logging.Logger | logging.LoggerAdapter[Any]


def in_flow_run() -> bool:
    """Return whether this code runs inside a Prefect flow run."""
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def run_logger() -> Logger:
    """Return the log of the Prefect run; outside of one, a logger whose warnings reach standard error."""
    if not in_flow_run():
        return logging.getLogger("spectrogram_one")
    from prefect.logging import get_run_logger

    return get_run_logger()


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a stage of a flow: it runs as a Prefect task if it is called inside a flow run."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return (_as_task(function) if in_flow_run() else function)(*args, **kwargs)

    return run


@cache
def _as_task(function: Callable[P, R]) -> Callable[P, R]:
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    made: Callable[P, R] = task(cache_policy=NO_CACHE)(
        function
    )  # Dask clients and tables cannot be cache keys
    return made
