"""What the server tells a team by itself, through a webhook that listens."""

import uuid
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from deployments.automations import AutomationResource, notices
from tasks.monitor import DRIFT_EVENT
from tests.servers.prefect_server import wait_until
from tests.servers.web import WebServer

pytestmark = pytest.mark.integration


@pytest.fixture
def hook(tmp_path):
    """A web server that a team looks at."""
    server = WebServer(tmp_path)
    yield server
    server.stop()


def test_drift_is_told_with_the_place_of_its_page(client, hook):
    block = CustomWebhookNotificationBlock(
        name="team", url=hook.url, method="GET", params={"told": "{{subject}}: {{body}}"}
    )
    (drift,) = (
        AutomationResource(each)
        for each in notices(block.save("drift-team", overwrite=True))
        if each.name == "cxrmodel-drift"
    )
    drift.write(client)
    place = f"s3://models/cxr/_drift/{uuid.uuid4().hex}"
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": DRIFT_EVENT,
        "resource": {"prefect.resource.id": "cxrmodel.bundle.x", "prefect.resource.name": place},
        "payload": {"verdict": "The window has drifted.", "location": place},
    }
    try:
        client.request("POST", "/events", json=[event]).raise_for_status()
        wait_until(lambda: hook.requests, "the team is told")
    finally:
        drift.delete(client)
    (told,) = parse_qs(urlsplit(hook.requests[0][1]).query)["told"]
    assert told == f"Scored images have drifted: The window has drifted.\n{place}/drift.html"
