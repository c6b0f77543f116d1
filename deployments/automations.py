"""What the server does by itself: end dead runs, look for drift, and notify of what matters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import (
    ActionTypes,
    ChangeFlowRunState,
    RunDeployment,
    SendNotification,
)
from prefect.events.schemas.automations import (
    Automation,
    AutomationCore,
    EventTrigger,
    Posture,
)
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from deployments.definitions import HEARTBEAT_S
from deployments.reconcile import found
from deployments.target import Target
from flows.evaluate import evaluate_bundle
from flows.main import train_pipeline
from flows.monitor import monitor_scores
from flows.promote import promote_bundle
from flows.score import score_images
from flows.sweep import sweep_settings
from tasks.monitor import DRIFT_EVENT

# A server that is down for some minutes must not end a healthy run. Prefect's client doubles its
# wait after each failed request, so heartbeats may pause for twice as long as the server was down.
DEAD_AFTER = timedelta(seconds=10 * HEARTBEAT_S)
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = ("Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry", "Scheduled")
NO_BLOCK = NO_DEPLOYMENT = UUID(int=0)
EVERY_FLOW = (
    train_pipeline, score_images, monitor_scores, promote_bundle, evaluate_bundle, sweep_settings
)  # fmt: skip
DEAD_RUNS, FAILURES, REPORTS = "cxrmodel-dead-runs", "cxrmodel-failures", "cxrmodel-reports"
MONITOR, DRIFT = "cxrmodel-monitor", "cxrmodel-drift"
MONITOR_DEPLOYMENT = f"{monitor_scores.name}/monitor"


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


def monitor_after_score() -> AutomationCore:
    """Look for drift after each run of `score`; its resource fills in which deployment that is."""
    return AutomationCore(
        name=MONITOR,
        description="Looks for drift when images were scored.",
        trigger=_trigger(Posture.Reactive, {"prefect.flow-run.Completed"}, score_images),
        actions=[RunDeployment(source="selected", deployment_id=NO_DEPLOYMENT)],
    )


def notices(block: UUID) -> list[AutomationCore]:
    """Tell of failures, finished reports and drift through a saved notification block."""
    return [
        _notice(FAILURES, {"Failed", "Crashed"}, "A run failed", block, *EVERY_FLOW),
        _notice(REPORTS, {"Completed"}, "A report is ready", block, train_pipeline),
        _drift_notice(block),
    ]


def _drift_notice(block: UUID) -> AutomationCore:
    subject = "Scored images have drifted"
    body = "{{ event.payload.verdict }}\n{{ event.payload.location }}/drift.html"
    action: ActionTypes = SendNotification(block_document_id=block, subject=subject, body=body)
    trigger = EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": "cxrmodel.bundle.*"}),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        expect={DRIFT_EVENT},
        threshold=1,
    )
    return AutomationCore(name=DRIFT, description=subject, trigger=trigger, actions=[action])


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
    """One automation on the server, found by its name.

    Args:
        automation: What it does.
        starts: Flow and name of the deployment that it starts, where it starts one.
    """

    def __init__(self, automation: AutomationCore, starts: str = "") -> None:
        self.label = f"automation {automation.name}"
        self._automation, self._starts = automation, starts

    def wanted(self) -> dict[str, Any]:
        """Return the fields as they should be."""
        return _fields(self._automation)

    def current(self, client: SyncPrefectClient) -> dict[str, Any] | None:
        """Return the same fields as the server has them, or None."""
        self._aim(client)
        automation = self._find(client)
        return None if automation is None else _fields(automation)

    def write(self, client: SyncPrefectClient) -> None:
        """Create or replace the automation; one switched off by hand stays off."""
        self._aim(client)
        automation = self._find(client)
        if automation is None:
            client.create_automation(self._automation)
            return
        updated = self._automation.model_copy(update={"enabled": automation.enabled})
        client.delete_automation(automation.id)
        client.create_automation(updated)

    def delete(self, client: SyncPrefectClient) -> None:
        """Remove the automation."""
        automation = self._find(client)
        if automation is not None:
            client.delete_automation(automation.id)

    def _aim(self, client: SyncPrefectClient) -> None:
        """Fill in the deployment that it starts, whose id is known once it is there."""
        if not self._starts:
            return
        deployment = found(lambda: client.read_deployment_by_name(self._starts))
        action: ActionTypes = RunDeployment(
            source="selected", deployment_id=deployment.id if deployment else NO_DEPLOYMENT
        )
        self._automation = self._automation.model_copy(update={"actions": [action]})

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

    One version beside another has no `monitor` that starts by itself.

    Raises:
        ValueError: The server has no such block.
    """
    wanted = [AutomationResource(dead_runs())]
    if not target.suffix:
        wanted.append(AutomationResource(monitor_after_score(), MONITOR_DEPLOYMENT))
    if target.notify:
        told = notices(_block_id(target.notify, client))
        wanted += [AutomationResource(automation) for automation in told]
    return wanted


def every_automation() -> list[AutomationResource]:
    """Return all automations that any target may have, to remove them by name."""
    every = [dead_runs(), monitor_after_score(), *notices(NO_BLOCK)]
    return [AutomationResource(automation) for automation in every]


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
