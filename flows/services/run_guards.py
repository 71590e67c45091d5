"""Whether a scheduled run should begin now: not when it comes too late, nor while another is at work."""

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


def late_start_reason(most: timedelta) -> str | None:
    """Say how late this flow run is, if that is more than `most`; None if it is in time."""
    wanted = flow_run.scheduled_start_time
    late = datetime.now(UTC) - wanted
    if late <= most:
        return None
    return (
        f"too late: it was to start at {wanted:%Y-%m-%d %H:%M} UTC, {_minutes(late)} minutes ago; "
        f"at most {_minutes(most)} are allowed"
    )


def overlap_reason(longest: timedelta) -> str | None:
    """Name the older run of this flow that is at work in the same Prefect server; None if there is none.

    The older one wins, so of two that begin together one goes on. A run whose process was
    killed stays "Running" for ever: what began more than `longest` ago is taken for dead.
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
        begun = other.start_time or ours.start_time or datetime.now(UTC)
        if datetime.now(UTC) - begun <= longest:
            return (
                f"run {other.name} is at work since {begun:%Y-%m-%d %H:%M} UTC: one at a time; if its process "
                f"is gone, cancel it in the UI, or wait: after {_hours(longest)} hours it is taken for dead"
            )
        run_logger().warning(
            "run %s is %s since %s, more than %s hours: taken for dead; cancel it in the UI",
            other.name,
            other.state_name,
            f"{begun:%Y-%m-%d %H:%M} UTC",
            _hours(longest),
        )
    return None


def _age_key(run: FlowRun) -> tuple[datetime, str]:
    return run.start_time or datetime.max.replace(tzinfo=UTC), str(run.id)


def _minutes(duration: timedelta) -> str:
    # The server's times are pendulum's, whose differences cannot be divided by a timedelta.
    return f"{duration.total_seconds() / 60:.0f}"


def _hours(duration: timedelta) -> str:
    return f"{duration / timedelta(hours=1):g}"
