"""What the server does by itself: end dead runs, and notify of failures and reports."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import (
    Automation,
    AutomationCore,
    EventTrigger,
    Posture,
)
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from deployments.definitions import HEARTBEAT_S
from deployments.target import Target
from flows.main import train_pipeline
from flows.promote import promote_bundle
from flows.score import score_images
from flows.sweep import sweep_settings

# A server that is down for some minutes must not end a healthy run. Prefect's client doubles its
# wait after each failed request, so heartbeats may pause for twice as long as the server was down.
DEAD_AFTER = timedelta(seconds=10 * HEARTBEAT_S)
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = ("Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry", "Scheduled")
NO_BLOCK = UUID(int=0)
EVERY_FLOW = (train_pipeline, score_images, promote_bundle, sweep_settings)
DEAD_RUNS, FAILURES, REPORTS = "cxrmodel-dead-runs", "cxrmodel-failures", "cxrmodel-reports"


def _runs_of(*flows: Flow[..., Any]) -> ResourceSpecification:
    return ResourceSpecification(
        {
            "prefect.resource.role": "flow",
            "prefect.resource.name": [flow.name for flow in flows],
        }
    )


def _trigger(
    posture: Posture, expect: set[str], *flows: Flow[..., Any], **fields: Any
) -> EventTrigger:
    return EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=_runs_of(*flows),
        for_each={"prefect.resource.id"},
        posture=posture,
        expect=expect,
        threshold=1,
        **fields,
    )


def dead_runs(after: timedelta = DEAD_AFTER) -> AutomationCore:
    """Crash a run whose heartbeats stop without an end: its machine or worker is gone."""
    trigger = _trigger(
        Posture.Proactive,
        {HEARTBEAT, *(f"prefect.flow-run.{state}" for state in ENDED)},
        *EVERY_FLOW,
        after={HEARTBEAT},
        within=after,
    )
    crash = ChangeFlowRunState(
        state=StateType.CRASHED,
        message="No heartbeat: the machine or the worker is gone. Run it again to go on.",
    )
    return AutomationCore(
        name=DEAD_RUNS,
        description=f"Marks a run as crashed after {after.total_seconds():.0f} s of silence.",
        trigger=trigger,
        actions=[crash],
    )


def notices(block: UUID) -> list[AutomationCore]:
    """Tell of failures and of finished reports through a saved notification block."""
    return [
        _notice(FAILURES, {"Failed", "Crashed"}, "A run failed", block, *EVERY_FLOW),
        _notice(REPORTS, {"Completed"}, "A report is ready", block, train_pipeline),
    ]


def _notice(
    name: str, states: set[str], subject: str, block: UUID, *flows: Flow[..., Any]
) -> AutomationCore:
    body = (
        "Flow run {{ flow_run.name }} of {{ deployment.name }} is {{ flow_run.state.name }}: "
        "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
    )
    action: ActionTypes = SendNotification(block_document_id=block, subject=subject, body=body)
    return AutomationCore(
        name=name,
        description=subject,
        trigger=_trigger(
            Posture.Reactive, {f"prefect.flow-run.{state}" for state in states}, *flows
        ),
        actions=[action],
    )


class AutomationResource:
    """One automation on the server, found by its name."""

    def __init__(self, automation: AutomationCore) -> None:
        self.label = f"automation {automation.name}"
        self._automation = automation

    def wanted(self) -> dict[str, Any]:
        """Return the fields as they should be."""
        return _fields(self._automation)

    def current(self, client: SyncPrefectClient) -> dict[str, Any] | None:
        """Return the same fields as the server has them, or None."""
        found = self._find(client)
        return None if found is None else _fields(found)

    def write(self, client: SyncPrefectClient) -> None:
        """Create or replace the automation; one switched off by hand stays off."""
        found = self._find(client)
        if found is None:
            client.create_automation(self._automation)
            return
        updated = self._automation.model_copy(update={"enabled": found.enabled})
        client.delete_automation(found.id)
        client.create_automation(updated)

    def delete(self, client: SyncPrefectClient) -> None:
        """Remove the automation."""
        found = self._find(client)
        if found is not None:
            client.delete_automation(found.id)

    def _find(self, client: SyncPrefectClient) -> Automation | None:
        return client.find_automation(self._automation.name)


def _fields(automation: AutomationCore) -> dict[str, Any]:
    fields = automation.model_dump(
        mode="json", include={"name", "description", "trigger", "actions"}
    )
    trigger = {name: _sorted(value) for name, value in fields["trigger"].items() if name != "id"}
    return {**fields, "trigger": trigger}


def _sorted(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def automations(target: Target, client: SyncPrefectClient) -> list[AutomationResource]:
    """Return the automations of a target: notices only where a block to send them is given.

    Raises:
        ValueError: The server has no such block.
    """
    wanted = [dead_runs()]
    if target.notify:
        wanted += notices(_block_id(target.notify, client))
    return [AutomationResource(automation) for automation in wanted]


def every_automation() -> list[AutomationResource]:
    """Return all automations that any target may have, to remove them by name."""
    return [AutomationResource(automation) for automation in [dead_runs(), *notices(NO_BLOCK)]]


def _block_id(reference: str, client: SyncPrefectClient) -> UUID:
    slug, _, name = reference.partition("/")
    if not slug or not name:
        raise ValueError(f"--notify {reference}: give it as TYPE/NAME of `prefect block ls`")
    try:
        return client.read_block_document_by_name(name, slug).id
    except ObjectNotFound:
        raise ValueError(
            f"--notify {reference}: the server has no such block. Save it first, as "
            "TYPE/NAME of `prefect block ls`"
        ) from None
