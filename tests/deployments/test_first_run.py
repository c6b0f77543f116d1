"""Deployed runs on a real object store, from the trigger to what a person sees in the page."""

import time
import uuid
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from tests.deployments.site import SMALL, STAGES, Site, api_of, descendants, listening
from tests.servers.browser import Visit, chromium, find_chromium, visit
from tests.servers.ceph import REGION
from tests.servers.prefect_server import AUTH

pytestmark = pytest.mark.integration
CACHED_S = 30
PATIENCE_S, POLL_MS = 30.0, 200
PREFECTS_OWN = "404 (Not Found)"  # the page asks for an icon that it does not have


class Runs(NamedTuple):
    """Two runs of the same settings, triggered at once.

    Attributes:
        first: The one that was started first.
        second: The other.
        most_at_once: How many were under way together, at most.
        ports: Addresses that the server, the worker and the runs have listened on.
        log: What the worker has written.
    """

    first: UUID
    second: UUID
    most_at_once: int
    ports: set[str]
    log: str


@pytest.fixture(scope="module")
def bucket(ceph) -> str:
    """An empty bucket for all tests of this module."""
    name = f"cxr-{uuid.uuid4().hex}"
    ceph.client().create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def site(server, ceph, bucket, project, tmp_path_factory) -> Site:
    """The deployments on a store in the bucket."""
    env = {
        **server.env,
        "AWS_ENDPOINT_URL": ceph.endpoint,
        "AWS_ACCESS_KEY_ID": ceph.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": ceph.credentials.secret_key,
        "AWS_DEFAULT_REGION": REGION,
        "PYTHONPATH": str(project),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    site = Site(tmp_path_factory.mktemp("worker"), env, "test-first-run")
    site.deploy(project, *SMALL, store=f"s3://{bucket}/store")
    return site


@pytest.fixture(scope="module")
def runs(server, site) -> Runs:
    """Both runs, at their end."""
    at_once, ports = [], set()
    with api_of(server) as api, site.worker() as worker:
        runs = [api.trigger("train"), api.trigger("train")]
        deadline = time.monotonic() + 600
        while {api.state(run) for run in runs} != {"Completed"}:
            states = [api.state(run) for run in runs]
            assert not {"Failed", "Crashed"} & set(states), [api.log(run) for run in runs]
            assert time.monotonic() < deadline, states
            at_once.append(states.count("Running") + states.count("Pending"))
            for process in (worker, server.process):
                ports |= listening([process.pid, *descendants(process.pid)])
            time.sleep(1)
        first, second = sorted(runs, key=lambda run: api.client.read_flow_run(run).start_time)
    return Runs(first, second, max(at_once), ports, site.log.read_text())


def test_of_two_triggers_at_once_the_second_waits_and_is_served_from_the_cache(api, runs):
    assert runs.most_at_once == 1
    assert api.stages(runs.first) == dict.fromkeys(STAGES, "Completed")
    assert api.stages(runs.second) == dict.fromkeys(STAGES, "Cached")
    assert api.client.read_flow_run(runs.second).total_run_time.total_seconds() < CACHED_S


def test_the_bucket_holds_every_artifact_its_record_and_the_report(ceph, bucket, runs):
    pages = ceph.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [found["Key"] for page in pages for found in page["Contents"]]
    manifests = [key for key in keys if key.endswith("/manifest.json")]
    assert {key.split("/")[1] for key in manifests} == STAGES
    records = [key.removeprefix("store/_results/") for key in keys if "/_results/" in key]
    assert {record.split("-")[0] for record in records} >= STAGES
    assert [key for key in keys if key.startswith("store/report/") and key.endswith("html")]
    assert not [key for key in keys if "/_checkpoints/" in key]


def test_nothing_listens_beyond_loopback(runs):
    assert runs.ports == {"127.0.0.1"}


def test_the_library_is_heard_and_no_secret_is(api, runs, ceph):
    told = api.log(runs.first)
    assert "images into" in told  # the library's own line, at INFO
    shown = [
        told,
        runs.log,
        str(api.client.read_flow_run(runs.first).model_dump()),
        str(api.artifacts(runs.first)),
        str([each.model_dump() for each in api.client.read_deployments()]),
    ]
    for secret in (ceph.credentials.secret_key, AUTH.split(":")[1]):
        assert not [text for text in shown if secret in text]


def test_the_page_shows_the_run_its_stages_and_its_results(server, api, runs, tmp_path):
    if find_chromium() is None:
        pytest.skip("no Chromium is installed")
    artifacts = api.artifact_ids(runs.first)
    train = api.client.read_deployment_by_name("cxrmodel/train").id
    pages = {
        f"runs/flow-run/{runs.first}": ["phantom-patient-default", "Completed"],
        f"runs/flow-run/{runs.second}#Task Runs": [*STAGES, *["Cached"] * len(STAGES)],
        "artifacts": ["headline", "per-class", "ledger"],
        f"artifacts/artifact/{artifacts['headline']}": ["macro_auroc", "/store/report/"],
        f"artifacts/artifact/{artifacts['ledger']}": ["image_missing"],
        f"deployments/deployment/{train}/run": ["Passes over the train images."],
    }
    texts = photograph(server.url, pages, tmp_path)
    for text, words in zip(texts, pages.values(), strict=True):
        assert not missing(words, text)
    assert {"headline", "per-class", "ledger"} <= set(texts[2].split())
    form = [texts[-1].find(section) for section in ("Data", "Images", "Split", "Vae")]
    assert form == sorted(form)


def missing(words: list[str], text: str) -> list[str]:
    """Return those that are not in the text as often as they are asked for."""
    return [word for word in set(words) if text.count(word) < words.count(word)]


def photograph(url: str, pages: dict[str, list[str]], folder: Path) -> list[str]:
    """Return the visible text of each page, and leave a picture of it; nothing may go wrong.

    A page asks for one thing after the other, and is quiet in between: it is left when it shows
    the words that are asked of it, or half a minute later.
    """
    texts = []
    with chromium() as browser, visit(browser, url) as seen:
        log_in(seen)
        for number, (place, words) in enumerate(pages.items()):
            path, _, tab = place.partition("#")
            seen.page.goto(f"{url}/{path}")
            seen.page.wait_for_load_state("networkidle")
            if tab:  # the log, which is shown first, holds only the lines in view
                seen.page.get_by_text(tab, exact=True).click()
            deadline = time.monotonic() + PATIENCE_S
            while missing(words, seen.page.inner_text("body")) and time.monotonic() < deadline:
                seen.page.wait_for_timeout(POLL_MS)
            seen.page.screenshot(path=folder / f"{number}.png", full_page=True)
            texts.append(seen.page.inner_text("body"))
        assert [error for error in seen.errors if PREFECTS_OWN not in error] == []
        assert seen.refused == []
    return texts


def log_in(seen: Visit) -> None:
    seen.page.fill("input", AUTH)
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url("**/dashboard")
    seen.errors.clear()  # it asked first, and was refused
