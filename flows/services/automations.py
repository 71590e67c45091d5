"""What the Prefect server does by itself on events of runs: end what died, report what failed.

A run whose worker and process were killed stays "Running" for ever. Runs send a heartbeat at their start and every
half minute (`flows.services.environment.HEARTBEATS`); one from which three are missing is set to Crashed.
"""

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from store.errors import BadInput

SILENCE_S = 90.0  # three heartbeats
HEARTBEAT, RUNNING = "prefect.flow-run.heartbeat", "prefect.flow-run.Running"
END_STATES = ("Completed", "Failed", "Cancelled", "Crashed")
TAG = "spectrogram-one"  # of every deployment
RUN = "prefect.resource.id"
OF_THESE_DEPLOYMENTS = ResourceSpecification(
    {"prefect.resource.id": [f"prefect.tag.{TAG}"], "prefect.resource.role": ["tag"]}
)


def silent_runs() -> AutomationCore:
    """Return the automation that sets a run to Crashed which sends no heartbeats any more, and did not end."""
    return _crash_after_silence(
        "spectrogram-one: runs that died",
        f"A run that sent heartbeats, and then none for {SILENCE_S:g} s, becomes Crashed",
        after=HEARTBEAT,
        match_related=ResourceSpecification({}),
    )


def runs_without_heartbeat() -> AutomationCore:
    """Return the automation that sets a run of these deployments to Crashed which never sent a heartbeat."""
    return _crash_after_silence(
        "spectrogram-one: runs that died at their start",
        f"A run of these deployments that sends no heartbeat within {SILENCE_S:g} s of its start becomes Crashed",
        after=RUNNING,
        match_related=OF_THESE_DEPLOYMENTS,
    )


def _crash_after_silence(
    name: str, description: str, *, after: str, match_related: ResourceSpecification
) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=description,
        trigger=EventTrigger(
            after={after},
            expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in END_STATES)},
            match=ResourceSpecification({RUN: ["prefect.flow-run.*"]}),
            match_related=match_related,
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


def failed_runs(block: UUID) -> AutomationCore:
    """Return the automation that reports each run that failed or crashed to a notification block."""
    return AutomationCore(
        name="spectrogram-one: failed runs",
        description="Reports each run of these flows that failed or crashed",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=ResourceSpecification({RUN: ["prefect.flow-run.*"]}),
            match_related=OF_THESE_DEPLOYMENTS,
            for_each={RUN},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="{{ flow.name }}: {{ flow_run.state.name }}",
                body="Run {{ flow_run.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
            )
        ],
    )


def apply_automations(notify: str = "") -> None:
    """Make the automations at the server in use, or bring them up to date; those of others stay.

    Raises: BadInput if the server has no notification block of the name `notify`; "" reports nothing.
    """
    with get_client(sync_client=True) as client:
        wanted = [silent_runs(), runs_without_heartbeat()]
        if notify:
            wanted.append(failed_runs(_find_block(client, notify)))
        known = {it.name: it.id for it in client.read_automations()}
        for each in wanted:
            if each.name in known:
                client.update_automation(known[each.name], each)
            else:
                client.create_automation(each)


def _find_block(client: SyncPrefectClient, name: str) -> UUID:
    kind, _, own_name = name.partition("/")
    try:
        found = client.read_block_document_by_name(own_name, kind)
    except ObjectNotFound:
        raise BadInput(
            f"--notify {name}: the server has no such block; make one in the UI (Blocks), and name it as KIND/NAME, "
            "such as slack-webhook/operators"
        ) from None
    return UUID(str(found.id))
