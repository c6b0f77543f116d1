"""Deployed runs that end early: cancelled, evicted, dead."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import pytest
from prefect.states import Cancelling

from deployments.automations import AutomationResource, dead_runs
from tests.deployments.site import ENDED, SMALL, Api, Site, descendants
from tests.servers.prefect_server import running, wait_until
from tests.servers.s3 import client_of, s3_server

pytestmark = pytest.mark.integration
BUCKET = "cxr"
CANCEL_S = 60  # on a busy machine
GRACE_S = 30
GOES_ON = "Training goes on after step"


@pytest.fixture(scope="module")
def cloud() -> Iterator[dict[str, str]]:
    """Environment of a client of an S3 server with one empty bucket."""
    with s3_server() as env:
        client_of(env).create_bucket(Bucket=BUCKET)
        yield env


@pytest.fixture(scope="module")
def site(server, cloud, project, films, tmp_path_factory) -> Site:
    """The deployments, on a pool that nobody works for yet."""
    env = {
        **server.env,
        **cloud,
        "PYTHONPATH": str(project),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    site = Site(tmp_path_factory.mktemp("worker"), env, "test-runs")
    site.deploy(project, *SMALL, f"--data.root={films}", store=f"s3://{BUCKET}/store")
    return site


@pytest.fixture
def worked(site):
    """The same with a worker."""
    with site.worker():
        yield site


LONG = {"vae__epochs": 400, "vae__checkpoint_every_s": 1}


def test_a_run_cancelled_in_training_is_resumed_by_the_next(api, worked):
    cancelled = api.trigger("train", **LONG)
    wait_until(worked.checkpoints, "a checkpoint is written")
    api.client.set_flow_run_state(cancelled, Cancelling())
    assert api.finish(cancelled, CANCEL_S) == "Cancelled", api.log(cancelled)
    assert worked.checkpoints()
    goes_on(api, LONG)


def goes_on(api: Api, settings: dict) -> None:
    resumed = api.trigger("train", **settings)
    wait_for_training(api, resumed)
    assert api.stages(resumed)["images"] == "Cached"
    api.client.set_flow_run_state(resumed, Cancelling())
    assert api.finish(resumed, CANCEL_S) == "Cancelled", api.log(resumed)


def wait_for_training(api: Api, run: UUID) -> None:
    """Wait until a run goes on from a checkpoint; its log is shown where it does not."""
    with suppress(TimeoutError):
        wait_until(lambda: GOES_ON in api.log(run) or api.state(run) in ENDED, "it goes on")
    assert GOES_ON in api.log(run), (api.state(run), api.log(run))


def test_an_evicted_pod_hands_its_run_back_and_one_elsewhere_goes_on(api, site):
    before = set(site.checkpoints())
    run = api.trigger("train", **{**LONG, "vae__epochs": 401})
    variables = api.client.read_flow_run(run).job_variables["env"]
    pod = {  # what Prefect sets in a Job whose backoffLimit is 0
        **site.env,
        **variables,
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
    }
    command = [sys.executable, "-m", "prefect", "flow-run", "execute", str(run)]
    with running(command, pod, site.folder / "pod.log") as process:
        wait_until(lambda: set(site.checkpoints()) - before, "a checkpoint is written")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=GRACE_S)
    assert api.state(run) == "AwaitingRetry", api.log(run)
    shutil.rmtree(site.scratch)  # the next pod may be on another node; the bucket has a copy
    with site.worker():
        wait_for_training(api, run)
        api.client.set_flow_run_state(run, Cancelling())
        assert api.finish(run, CANCEL_S) == "Cancelled", api.log(run)


def test_a_run_whose_machine_dies_is_found_dead_and_goes_on_by_hand(api, site):
    soon = AutomationResource(dead_runs(after=timedelta(seconds=60)))
    soon.write(api.client)
    before = set(site.checkpoints())
    own = {**LONG, "vae__epochs": 402}  # checkpoints of another test's training are not taken over
    with site.worker() as worker:
        run = api.trigger("train", env={"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}, **own)
        wait_until(lambda: set(site.checkpoints()) - before, "a checkpoint is written")
        time.sleep(35)  # until a heartbeat has armed the automation
        for process in (worker.pid, *descendants(worker.pid)):
            os.kill(process, signal.SIGKILL)
        worker.wait()
    assert api.state(run) == "Running"  # nobody is left to say otherwise
    wait_until(lambda: api.state(run) == "Crashed", "the automation finds it dead")
    with site.worker():
        goes_on(api, own)
