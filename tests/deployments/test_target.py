"""What the command line of `python -m deployments` says, before any server is asked."""

from typing import get_args

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cxrmodel.config import PipelineConfig, SplitConfig, Stage
from deployments.__main__ import main
from deployments.definitions import deployments
from deployments.pools import records_environment
from deployments.target import PROJECT, Target, placed

PROCESS = Target(pool_type="process")
DOCKER = Target(pool_type="docker", image="cxrmodel:1")


def config_of(root="outputs/store", scratch="outputs/scratch", data="phantom", csv=None):
    return PipelineConfig(data={"root": data, "csv": csv}, store={"root": root, "scratch": scratch})


@pytest.mark.parametrize(
    "written, folder",
    [
        ("outputs/store", f"{PROJECT}/outputs/store"),
        ("file:///data/store", "/data/store"),
        ("file:///data/store/", "/data/store"),
        ("~/cxr", "/home/me/cxr"),
        ("./~/cxr", f"{PROJECT}/~/cxr"),
        ("/data/my store/50%", "/data/my store/50%"),
    ],
)
def test_a_local_store_is_where_it_was_said_to_be(monkeypatch, written, folder):
    monkeypatch.setenv("HOME", "/home/me")
    config = placed(config_of(root=written, scratch=f"{written.rstrip('/')}-scratch"), PROCESS)
    assert config.store.root == folder
    assert config.store.scratch == f"{folder}-scratch"
    assert records_environment(config.store.root) == {
        "PREFECT_LOCAL_STORAGE_PATH": f"{folder}/_results"
    }


def test_relative_places_are_those_of_the_machine_that_runs_the_job():
    config = placed(config_of(data="films", csv="labels.csv"), DOCKER)
    assert (config.data.root, config.data.csv) == ("/app/films", "/app/labels.csv")
    assert (config.store.root, config.store.scratch) == (
        "/app/outputs/store",
        "/app/outputs/scratch",
    )


def test_a_table_of_parts_is_one_of_the_machine_that_runs_the_job():
    for file, there in (("parts.csv", "/app/parts.csv"), ("s3://b/parts.csv", "s3://b/parts.csv")):
        config = placed(PipelineConfig(split={"method": "file", "file": file}), DOCKER)
        assert config.split == SplitConfig(method="file", file=there)


@pytest.mark.parametrize(
    ("given", "weekly"), [("patient", "hash"), ("hash", "hash"), ("official", "official")]
)
def test_no_patient_moves_in_a_deployment_that_sees_the_data_grow(given, weekly):
    config = placed(PipelineConfig(split={"method": given, "seed": 7}), PROCESS)
    found = {
        made.label: made.wanted()["parameters"]["config"] for made in deployments(config, PROCESS)
    }
    split = {"method": weekly, "file": None, "seed": 7}
    assert found["deployment cxrmodel/train-weekly"]["split"] == split
    assert found["deployment cxrmodel/train"]["split"]["method"] == given


def test_smoke_runs_every_stage_and_never_from_the_cache():
    (smoke,) = (
        made.wanted()["parameters"]
        for made in deployments(placed(PipelineConfig(), PROCESS), PROCESS)
        if made.label == "deployment cxrmodel/smoke"
    )
    assert smoke["refresh"] == [*get_args(Stage)]
    assert PipelineConfig(**smoke["config"]).data.is_synthetic


@pytest.mark.parametrize(
    "data, root",
    [
        ({"root": "/data/nih"}, "/data/nih"),
        ({"root": "phantom"}, ""),
        ({"sources": [{"root": "/data/nih"}, {"root": "/data/chexpert"}]}, ""),
    ],
)
def test_scoring_starts_from_the_images_of_a_training_that_has_one_folder(data, root):
    found = {
        made.label: made.wanted()["parameters"]["config"]
        for made in deployments(placed(PipelineConfig(data=data), PROCESS), PROCESS)
    }
    assert found["deployment cxrmodel-score/score"]["data"] == {"root": root}
    assert found["deployment cxrmodel-promote/promote"]["data"] == {"root": root}
    assert found["deployment cxrmodel-monitor/monitor"]["data"]["root"] == root
    assert found["deployment cxrmodel-evaluate/evaluate"]["data"]["root"] == ""  # never home's own


def test_what_is_no_folder_stays_as_it_is():
    config = placed(config_of(root="s3://bucket/store/", data="zip::s3://bucket/x.zip"), DOCKER)
    assert config.store.root == "s3://bucket/store"
    assert (config.data.root, config.data.csv) == ("zip::s3://bucket/x.zip", None)
    assert placed(config_of(), DOCKER).data.root == "phantom"
    assert placed(config_of(data="zip::x.zip"), DOCKER).data.root == "zip::/app/x.zip"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--pool-typ=process"], "--pool-typ: there is no such flag; did you mean --pool-type?"),
        (
            ["--pool-type=proces"],
            "--pool-type: 'proces' is not one of process, docker, kubernetes; did you mean "
            "process?",
        ),
        ([], "--pool-type is needed: one of process, docker, kubernetes"),
        (["--pool-type"], "--pool-type: expected one argument"),
        (
            ["--pool-type=process", "--vae.epoch=3"],
            "--vae.epoch: there is no such flag; did you mean --vae.epochs?",
        ),
        (["gc", "--store.rot=x"], "--store.rot: there is no such flag; did you mean --store.root?"),
        (["gc"], "--store.root is needed: the folder or URL of the store"),
    ],
)
def test_a_wrong_flag_is_told_with_the_nearest_and_where_help_is(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert lines[0] == f"error: {message}"
    command = "python -m deployments gc" if arguments[:1] == ["gc"] else "python -m deployments"
    assert lines[1].startswith(f"See {command} --help for every ")
    assert len(lines) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--env==x"], "--env =x: give it as NAME=VALUE"),
        (["--volume=data"], "--volume data: give it as SOURCE:TARGET"),
        (["--suffix=a b"], "--suffix: String should match pattern '^[\\w.-]*$', got 'a b'"),
        (["--env=MY_TOKEN=hunter2"], "--env: MY_TOKEN looks like a secret"),
        (["--store.root=s3://me:hunter2@bucket"], "--store.root: It must not carry credentials"),
    ],
)
def test_a_wrong_value_is_told_and_no_secret_repeated(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(["--pool-type=process", *arguments])
    text = capsys.readouterr().err
    assert stopped.value.code == 2
    assert text.startswith(f"error: {message}")
    assert "hunter2" not in text


def test_a_server_that_does_not_answer_is_named_without_its_password(capsys):
    url = "http://me:hunter2@127.0.0.1:1/api"
    with (
        temporary_settings(updates={PREFECT_API_URL: url}),
        pytest.raises(SystemExit) as stopped,
    ):
        main(["--pool-type=process"])
    text = capsys.readouterr().err
    assert stopped.value.code == 1
    assert text.startswith("error: the server at http://127.0.0.1:1/api does not answer")
    assert "hunter2" not in text


def test_a_notification_block_has_a_type_and_a_name(capsys):
    with (
        temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(SystemExit) as stopped,
    ):
        main(["--pool-type=process", "--notify=team"])
    assert stopped.value.code == 2
    assert "--notify team: give it as TYPE/NAME" in capsys.readouterr().err
