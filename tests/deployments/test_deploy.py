"""`python -m deployments` against a real server: idempotent, careful, and clear in its errors."""

import os
import subprocess
import sys

import httpx
import pytest
from prefect.blocks.notifications import SlackWebhook
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.__main__ import main
from tests.servers.prefect_server import AUTH

pytestmark = pytest.mark.integration
PROCESS = ["--pool-type", "process", "--pool", "test-deploy"]
MADE = [
    "work pool test-deploy",
    "deployment cxrmodel/train",
    "deployment cxrmodel/train-weekly",
    "deployment cxrmodel/smoke",
    "deployment cxrmodel-score/score",
    "deployment cxrmodel-monitor/monitor",
    "deployment cxrmodel-promote/promote",
    "deployment cxrmodel-evaluate/evaluate",
    "deployment cxrmodel-sweep/sweep",
    "automation cxrmodel-dead-runs",
    "automation cxrmodel-monitor",
]


@pytest.fixture
def deploy(client, capsys):
    """Run the command and return its lines; what it made is removed afterwards."""

    def run(*arguments: str) -> list[str]:
        capsys.readouterr()
        main([*PROCESS, *arguments])
        return capsys.readouterr().out.splitlines()

    run("--delete")  # what other tests have left
    yield run
    run("--delete")


@pytest.fixture
def refusal(client, capsys):
    """Run the command, which must fail, and return its exit code and message."""

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        return stopped.value.code, capsys.readouterr().err.strip()

    return run


def test_everything_is_made_once_and_a_dry_run_makes_nothing(deploy, client):
    created = [f"create    {label}" for label in MADE]
    assert deploy("--dry-run") == created
    assert deploy() == created
    assert deploy() == [f"unchanged {label}" for label in MADE]
    assert client.read_work_pool("test-deploy").concurrency_limit == 1


def test_only_what_differs_is_updated(deploy, client):
    deploy()
    wanted = "    parameters.config.vae.epochs: 10 -> 3"
    assert wanted in deploy("--vae.epochs=3", "--dry-run")
    assert train(client).parameters["config"]["vae"]["epochs"] == 10
    lines = deploy("--vae.epochs=3")
    assert lines[0] == "unchanged work pool test-deploy"
    assert lines[1:3] == ["update    deployment cxrmodel/train", wanted]
    assert train(client).parameters["config"]["vae"]["epochs"] == 3


def train(client, name="train"):
    return client.read_deployment_by_name(f"cxrmodel/{name}")


def test_what_was_switched_by_hand_stays_so(deploy, client):
    deploy()
    weekly = train(client, "train-weekly")
    assert [schedule.active for schedule in weekly.schedules] == [False]
    client.update_deployment_schedule(weekly.id, weekly.schedules[0].id, active=True)
    client.pause_deployment(train(client).id)
    client.update_work_pool("test-deploy", WorkPoolUpdate(is_paused=True))
    deploy("--vae.epochs=3")
    assert [schedule.active for schedule in train(client, "train-weekly").schedules] == [True]
    assert train(client).paused
    assert client.read_work_pool("test-deploy").is_paused


def test_a_misspelled_job_variable_is_refused(deploy, client):
    deploy()
    with pytest.raises(PrefectHTTPStatusError, match="gpu_cuont"):
        client.create_flow_run_from_deployment(train(client).id, job_variables={"gpu_cuont": 2})


def test_an_impossible_setting_is_refused_by_the_server(deploy, client):
    deploy()
    parameters = train(client).parameters
    parameters["config"]["vae"]["epochs"] = 0
    with pytest.raises(PrefectHTTPStatusError, match="409"):
        client.create_flow_run_from_deployment(train(client).id, parameters=parameters)


def test_the_form_shows_every_setting_in_order_and_with_help(deploy, client):
    deploy()
    sections = train(client).parameter_openapi_schema["definitions"]
    epochs = sections["VAEConfig"]["properties"]["epochs"]
    assert epochs["description"] == "Passes over the train images."
    assert epochs["exclusiveMinimum"] == 0
    order = sorted(
        sections["PipelineConfig"]["properties"].items(), key=lambda item: item[1]["position"]
    )
    assert [name for name, _ in order][:4] == ["preset", "data", "images", "split"]


def test_deleting_removes_all_and_says_what_was_absent(deploy, client):
    deploy()
    lines = deploy("--delete")
    assert [line for line in lines if line.startswith("delete")] == [
        f"delete    {label}" for label in reversed(MADE)
    ]
    assert all(line.startswith("absent") for line in deploy("--delete"))


def test_notices_are_made_where_a_block_is_given(deploy, client):
    SlackWebhook(url="https://hooks.slack.com/x").save("team", overwrite=True)
    lines = deploy("--notify=slack-webhook/team")
    assert lines[-3:] == [
        "create    automation cxrmodel-failures",
        "create    automation cxrmodel-reports",
        "create    automation cxrmodel-drift",
    ]
    assert {line.split()[0] for line in deploy("--notify=slack-webhook/team")} == {"unchanged"}
    assert "delete    automation cxrmodel-reports" in deploy("--delete")


def test_monitor_is_started_after_score(deploy, client):
    deploy()
    deployment = client.read_deployment_by_name("cxrmodel-monitor/monitor")
    (automation,) = client.read_automations_by_name("cxrmodel-monitor")
    assert [action.deployment_id for action in automation.actions] == [deployment.id]
    assert automation.trigger.expect == {"prefect.flow-run.Completed"}
    related = automation.trigger.match_related.model_dump()
    assert related["prefect.resource.name"] == ["cxrmodel-score"]


def test_a_pool_of_another_type_is_not_touched(deploy, client, refusal):
    deploy()
    code, message = refusal("--pool-type=docker", "--image=cxrmodel:1", "--pool=test-deploy")
    assert code == 2
    assert "is of type process, which cannot become docker" in message
    assert client.read_work_pool("test-deploy").type == "process"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--pool-type=docker"], "--pool-type docker needs an image: see --image"),
        (["--pool-type=process", "--image=x"], "process takes no image: see --image"),
        (["--pool-type=process", "--volume=a:/b"], "--volume is for docker"),
        (["--pool-type=docker", "--image=x", "--outputs-claim=c"], "is for kubernetes"),
        (["--pool-type=kubernetes", "--image=x"], "would be a folder inside each pod"),
        (["--pool-type=process", "--env=AWS_SECRET_ACCESS_KEY=x"], "looks like a secret"),
        (["--pool-type=process", "--env=NAME"], "--env NAME: give it as NAME=VALUE"),
        (["--pool-type=process", "--vae.lr=-1"], "--vae.lr: Input should be greater than 0"),
        (["--pool-type=process", "--suffix=a b"], "--suffix: String should match pattern"),
        (["--pool-type=process", "--notify=slack-webhook/nobody"], "has no such block"),
        (["--pool-type=process", "--config=nowhere.yaml"], "there is no file"),
    ],
)
def test_a_bad_argument_is_named(refusal, arguments, message):
    code, text = refusal(*arguments)
    assert code == 2
    assert text.startswith("error: ")
    assert message in text


def test_no_server_and_a_server_that_does_not_answer_are_said(refusal):
    with temporary_settings(updates={PREFECT_API_URL: None}):
        assert "PREFECT_API_URL is not set" in refusal(*PROCESS)[1]
    with temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        assert "http://127.0.0.1:1/api does not answer" in refusal(*PROCESS)[1]


def test_a_wrong_password_is_refused(refusal, server):
    with temporary_settings(updates={PREFECT_API_AUTH_STRING: "admin:wrong"}):
        assert refusal(*PROCESS) == (
            1,
            'error: the server answers 401: {"exception_message":"Unauthorized"}',
        )


def test_no_password_and_a_cross_site_request_are_refused(server):
    api = server.env["PREFECT_API_URL"]
    user, password = AUTH.split(":")
    assert httpx.get(f"{api}/admin/version").status_code == 401
    assert httpx.get(f"{api}/admin/version", auth=(user, password)).status_code == 200
    forged = httpx.post(f"{api}/work_pools/filter", json={}, auth=(user, password))
    assert (forged.status_code, "CSRF" in forged.text) == (403, True)


def test_the_command_runs_as_a_module(project):
    command = [sys.executable, "-m", "deployments", "--help"]
    env = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=project, env=env, text=True, capture_output=True, check=True)
    assert "--dry-run" in done.stdout
    assert "gc --help" in done.stdout
