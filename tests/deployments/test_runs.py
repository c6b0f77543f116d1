"""Deployed runs end to end: a guarded server, a process worker, a bucket, started by the API."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import boto3
import pytest
from moto.server import ThreadedMotoServer
from prefect.client.schemas.filters import FlowRunFilter, LogFilter
from prefect.states import Cancelling

from deployments.automations import AutomationResource, dead_runs

pytestmark = pytest.mark.integration
POOL = "test-runs"
BUCKET = "cxr"
SMALL = (
    "--data.phantom_images=60",
    "--images.size=64",
    "--vae.epochs=1",
    "--vae.batch_size=8",
    "--latents.batch_size=16",
    "--classifier.epochs=2",
    "--report.num_reconstructions=1",
    "--report.tsne_points=50",
    "--runtime.device=cpu",
)
STAGES = {"index", "images", "split", "vae", "latents", "classifier", "baselines", "report"}
CANCEL_S = 15
GRACE_S = 30


@pytest.fixture(scope="module")
def cloud() -> dict[str, str]:
    """Environment of a client of an S3 server with one empty bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    bucket(env).create()
    yield env
    server.stop()


def bucket(env: dict[str, str]):
    resource = boto3.resource(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_DEFAULT_REGION"],
    )
    return resource.Bucket(BUCKET)


def keys(env: dict[str, str]) -> list[str]:
    return [item.key for item in bucket(env).objects.all()]


@dataclass(frozen=True)
class Site:
    """A machine that runs what the pool hands out."""

    folder: Path
    env: dict[str, str]
    background: object

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def checkpoints(self) -> list[Path]:
        return list(self.scratch.glob("work/vae-*/*.safetensors"))

    @contextmanager
    def worker(self):
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
        log = self.folder / "worker.log"
        with self.background([*command, "--type", "process"], self.env, log) as process:
            yield process


@pytest.fixture(scope="module")
def site(server, cloud, project, background, tmp_path_factory) -> Site:
    """The deployments, on a pool that nobody works for yet."""
    folder = tmp_path_factory.mktemp("worker")
    env = {**server, **cloud, "PYTHONPATH": str(project), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    places = [f"--store.root=s3://{BUCKET}/store", f"--store.scratch={folder / 'scratch'}"]
    command = [sys.executable, "-m", "deployments", "--pool-type=process", f"--pool={POOL}"]
    command += [*places, *SMALL]
    subprocess.run(command, cwd=project, env={**os.environ, **env}, check=True)
    return Site(folder, env, background)


@pytest.fixture
def worked(site):
    """The same with a worker."""
    with site.worker():
        yield site


class Api:
    """What a user does and sees through the API."""

    def __init__(self, client, until):
        self.client, self.until = client, until

    def trigger(self, name: str, env: dict[str, str] | None = None, **settings) -> UUID:
        deployment = self.client.read_deployment_by_name(f"cxrmodel/{name}")
        parameters = deployment.parameters
        for path, value in settings.items():
            section, field = path.split("__")
            parameters["config"][section][field] = value
        variables = {"env": {**deployment.job_variables["env"], **(env or {})}}
        run = self.client.create_flow_run_from_deployment(
            deployment.id, parameters=parameters, job_variables=variables
        )
        return run.id

    def state(self, run: UUID) -> str:
        return self.client.read_flow_run(run).state_name

    def finish(self, run: UUID, timeout_s: float = 180) -> str:
        ended = {"Completed", "Failed", "Crashed", "Cancelled"}
        self.until(lambda: self.state(run) in ended, f"run {run} ends", timeout_s)
        return self.state(run)

    def stages(self, run: UUID) -> dict[str, str]:
        """State of each stage of a run, by name."""
        tasks = self.client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [run]}))
        return {task.name: task.state_name for task in tasks if task.name in STAGES}

    def log(self, run: UUID) -> str:
        logs = self.client.read_logs(LogFilter(flow_run_id={"any_": [run]}), limit=200)
        return "\n".join(entry.message for entry in logs)


@pytest.fixture
def api(client, until) -> Api:
    return Api(client, until)


def test_two_triggers_at_once_the_second_waits_and_is_served_from_the_cache(api, worked, cloud):
    runs = [api.trigger("train"), api.trigger("train")]
    deadline = time.monotonic() + 240
    while {api.state(run) for run in runs} != {"Completed"}:
        states = [api.state(run) for run in runs]
        assert states.count("Running") + states.count("Pending") <= 1, states
        assert not {"Failed", "Crashed"} & set(states), [api.log(run) for run in runs]
        assert time.monotonic() < deadline, states
        time.sleep(0.3)
    first, second = sorted(runs, key=lambda run: api.client.read_flow_run(run).start_time)
    assert api.stages(first) == dict.fromkeys(STAGES, "Completed")
    assert api.stages(second) == dict.fromkeys(STAGES, "Cached")
    assert api.client.read_flow_run(second).total_run_time.total_seconds() < 30
    assert api.client.read_flow_run(first).name == "phantom-patient"
    assert "images into" in api.log(first)  # the library's own lines, at INFO

    stored = keys(cloud)
    records = [key.removeprefix("store/_results/") for key in stored if "/_results/" in key]
    assert {record.split("-")[0] for record in records} >= STAGES
    assert [key for key in stored if key.startswith("store/report/") and key.endswith("html")]


def test_smoke_runs_every_stage_and_never_from_the_cache(api, worked):
    for _ in range(2):
        run = api.trigger("smoke", data__phantom_images=60, images__size=64)
        assert api.finish(run) == "Completed", api.log(run)
        assert api.stages(run) == dict.fromkeys(STAGES, "Completed")


LONG = {"vae__epochs": 400, "vae__checkpoint_every_s": 1}


def test_a_run_cancelled_in_training_is_resumed_by_the_next(api, worked):
    cancelled = api.trigger("train", **LONG)
    api.until(worked.checkpoints, "a checkpoint is written")
    api.client.set_flow_run_state(cancelled, Cancelling())
    assert api.finish(cancelled, CANCEL_S) == "Cancelled", api.log(cancelled)
    assert worked.checkpoints()
    goes_on(api)


def goes_on(api: Api) -> None:
    resumed = api.trigger("train", **LONG)
    api.until(lambda: "Training goes on after step" in api.log(resumed), "the training goes on")
    assert api.stages(resumed)["images"] == "Cached"
    api.client.set_flow_run_state(resumed, Cancelling())
    assert api.finish(resumed, CANCEL_S) == "Cancelled", api.log(resumed)


def test_an_evicted_pod_hands_its_run_back_and_the_next_goes_on(api, site):
    before = set(site.checkpoints())
    run = api.trigger("train", **{**LONG, "vae__epochs": 401})
    variables = api.client.read_flow_run(run).job_variables["env"]
    pod = {  # what Prefect sets in a Job whose backoffLimit is 0
        **site.env,
        **variables,
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
    }
    command = [sys.executable, "-m", "prefect", "flow-run", "execute", str(run)]
    with site.background(command, pod, site.folder / "pod.log") as process:
        api.until(lambda: set(site.checkpoints()) - before, "a checkpoint is written")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=GRACE_S)
    assert api.state(run) == "AwaitingRetry", api.log(run)
    with site.worker():
        api.until(lambda: "Training goes on after step" in api.log(run), "the training goes on")
        api.client.set_flow_run_state(run, Cancelling())
        assert api.finish(run, CANCEL_S) == "Cancelled", api.log(run)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def test_a_run_whose_machine_dies_is_found_dead_and_goes_on_by_hand(api, site):
    soon = AutomationResource(dead_runs(after=timedelta(seconds=60)))
    soon.write(api.client)
    with site.worker() as worker:
        run = api.trigger("train", env={"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}, **LONG)
        api.until(site.checkpoints, "a checkpoint is written")
        time.sleep(35)  # until a heartbeat has armed the automation
        for process in (worker.pid, *children(worker.pid)):
            os.kill(process, signal.SIGKILL)
        worker.wait()
    assert api.state(run) == "Running"  # nobody is left to say otherwise
    api.until(lambda: api.state(run) == "Crashed", "the automation finds it dead", 150)
    with site.worker():
        goes_on(api)
