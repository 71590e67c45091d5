"""Reasons not to start a scheduled run now: it is too late, or another run is active."""

from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.runtime import flow_run

from flows.reporting.stage import run_logger

ACTIVE_STATES = [StateType.RUNNING, StateType.CANCELLING]


def late_start_reason(max_delay: timedelta) -> str | None:
    """Describe the delay of this flow run if it is longer than `max_delay`; return None if it is not."""
    scheduled = flow_run.scheduled_start_time
    delay = datetime.now(UTC) - scheduled
    if delay <= max_delay:
        return None
    return (
        f"too late: it was scheduled for {scheduled:%Y-%m-%d %H:%M} UTC, {_minutes(delay)} minutes ago; "
        f"at most {_minutes(max_delay)} are allowed (--max-delay-minutes)"
    )


def overlap_reason(stale_after: timedelta) -> str | None:
    """Describe the older active run of this flow in the same Prefect server; return None if there is none.

    The older run has precedence, so of two that start together one continues. A run whose process was
    killed stays "Running" forever: one that started longer than `stale_after` ago is considered dead.
    """
    with get_client(sync_client=True) as client:
        ours = client.read_flow_run(flow_run.id)
        others = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_run.flow_name])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ACTIVE_STATES)),
            ),
        )
    for other in sorted((it for it in others if _age_key(it) < _age_key(ours)), key=_age_key):
        started = other.start_time or ours.start_time or datetime.now(UTC)
        if datetime.now(UTC) - started <= stale_after:
            return (
                f"run {other.name} is active since {started:%Y-%m-%d %H:%M} UTC, and one runs at a time; if its "
                f"process is gone, cancel it in the UI, or wait: after {_hours(stale_after)} hours it is considered "
                "dead (--stale-after-hours)"
            )
        run_logger().warning(
            "run %s is %s since %s, more than %s hours: considered dead; cancel it in the UI",
            other.name,
            other.state_name,
            f"{started:%Y-%m-%d %H:%M} UTC",
            _hours(stale_after),
        )
    return None


def _age_key(run: FlowRun) -> tuple[datetime, str]:
    return run.start_time or datetime.max.replace(tzinfo=UTC), str(run.id)


def _minutes(duration: timedelta) -> str:
    # The server's times are pendulum's, whose differences cannot be divided by a timedelta.
    return f"{duration.total_seconds() / 60:.0f}"


def _hours(duration: timedelta) -> str:
    return f"{duration / timedelta(hours=1):g}"
