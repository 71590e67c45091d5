"""What the Prefect server does by itself on events of runs: end what died, report what failed.

A run whose worker and process were killed stays "Running" for ever. Runs send a heartbeat every half minute
(`PREFECT_FLOWS_HEARTBEAT_FREQUENCY`); one from which three are missing is set to Crashed.
"""

from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

SILENCE_S = 90.0  # three heartbeats
HEARTBEAT = "prefect.flow-run.heartbeat"
END_STATES = ("Completed", "Failed", "Cancelled", "Crashed")
RUN = "prefect.resource.id"


def silent_runs() -> AutomationCore:
    """Return the automation that sets a run to Crashed which sends no heartbeats any more, and did not end."""
    return AutomationCore(
        name="spectrogram-one: runs that died",
        description=f"A run that sent heartbeats, and then none for {SILENCE_S:g} s, becomes Crashed",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in END_STATES)},
            match=ResourceSpecification({RUN: ["prefect.flow-run.*"]}),
            for_each={RUN},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no heartbeat for {SILENCE_S:g} s: the process or its machine is gone; run it again to resume",
            )
        ],
    )


def apply_automations() -> None:
    """Make the automations at the server in use, or bring them up to date; those of others stay."""
    wanted = silent_runs()
    with get_client(sync_client=True) as client:
        known = [it for it in client.read_automations() if it.name == wanted.name]
        if known:
            client.update_automation(known[0].id, wanted)
        else:
            client.create_automation(wanted)
