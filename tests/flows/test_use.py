"""Scoring and promotion as a user runs them, on a bundle of a finished run."""

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_UI_URL,
    temporary_settings,
)

from cxrmodel.inference.bundle import write_checksums
from cxrmodel.inference.command_line import main as cxrmodel
from cxrmodel.inference.use_config import PromoteConfig, ScoreConfig
from cxrmodel.storage.aliases import Aliases
from flows import promote
from flows.promote import promote_bundle
from flows.score import score_images
from tests.servers.prefect_server import wait_until

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def within_server(prefect_env):
    settings = {PREFECT_API_URL: prefect_env["PREFECT_API_URL"]}
    with temporary_settings({**settings, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@pytest.fixture(scope="module")
def champion(finished) -> Path:
    return next((finished[0].store / "bundle").iterdir())


@pytest.fixture
def challenger(champion, tmp_path) -> Path:
    """Another bundle with the same predictions."""
    other = shutil.copytree(champion, tmp_path / "challenger")
    (other / "README.md").write_text("another card")
    write_checksums(other)
    return other


@pytest.fixture
def settings(finished, tmp_path):
    """Settings of a store of the test's own."""
    pipeline, run = finished
    return {
        "device": "cpu",
        "store": {"root": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")},
        "data": {"root": pipeline.data},
    }


@pytest.fixture
def contest(settings, finished, champion, challenger):
    """Settings of a contest; the champion is there already."""
    promote_bundle(PromoteConfig(**settings, challenger=str(champion)))
    test = str(finished[1].report.parent / "test_predictions.parquet")
    return {**settings, "challenger": str(challenger), "test": test}


def test_the_champion_scores_what_is_new(settings, champion, tmp_path):
    config = ScoreConfig(**settings)
    with pytest.raises(Exception, match="has no alias champion"):
        score_images(config)
    promote_bundle(PromoteConfig(**settings, challenger=str(champion)))
    done = score_images(config)
    assert done["listed"].startswith("90 images in ")
    assert done["scored"].startswith("90 new or changed (")
    assert score_images(config)["scored"] == "0 new or changed"
    assert len(pd.read_parquet(done["scores"])) == 90
    out = tmp_path / "scores.csv"
    root = settings["store"]["root"]
    cxrmodel(["predict", "champion", settings["data"]["root"], "--store", root, f"--out={out}"])
    assert len(pd.read_csv(out)) == 90


def test_an_equal_challenger_is_refused(contest, champion):
    done = promote_bundle(PromoteConfig(**contest))
    assert done["refused"] == contest["challenger"]
    assert done["why"].startswith("The gain in macro AUROC, +0.0000")
    assert Aliases(contest["store"]["root"]).find("champion") == str(champion)


def test_a_person_approves_in_the_page_or_declines(contest, monkeypatch, champion):
    monkeypatch.setattr("cxrmodel.inference.promotion.Contest.is_won", True)
    monkeypatch.setattr(promote, "POLL_S", 1)
    config = PromoteConfig(**contest, require_approval=True)
    with temporary_settings({PREFECT_UI_URL: ""}), pytest.raises(ValueError, match="without one"):
        promote_bundle(config)
    aliases = Aliases(contest["store"]["root"])
    declined = answered(config, {"approve": False, "who": "ann", "why": "not before Friday"})
    assert declined["why"] == "ann declined: not before Friday"
    assert aliases.find("champion") == str(champion)
    assert "promoted" in answered(config, {"approve": True, "who": "ann", "why": "looks good"})
    change = aliases.current("champion")
    assert (change.who, change.why) == ("ann", "looks good")
    assert change.evidence["num_images"] > 0
    rollback = PromoteConfig(store=config.store, rollback=True, why="too many alerts")
    assert promote_bundle(rollback) == {"rolled back": f"{champion} has the alias champion again"}


def answered(config: PromoteConfig, answer: dict) -> dict[str, str]:
    """Run a promotion, and answer as a person does once it is paused."""
    done = {}
    api = PREFECT_API_URL.value()

    def run():
        with temporary_settings({PREFECT_API_URL: api}):
            done.update(promote_bundle(config))

    thread = threading.Thread(target=run)
    thread.start()
    with get_client(sync_client=True) as client:
        paused = FlowRunFilter(state={"name": {"any_": ["Paused"]}})
        wait_until(lambda: client.read_flow_runs(flow_run_filter=paused), "it waits")
        (found,) = client.read_flow_runs(flow_run_filter=paused)
        client.resume_flow_run(found.id, run_input=answer)
    thread.join(60)
    return done


def command(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROJECT / f"flows/{name}.py", *flags], text=True, capture_output=True
    )


@pytest.mark.parametrize(
    "name, flags, message",
    [
        ("score", [], "Give data.root, the folder or URL of the images."),
        ("score", ["--bundel=x"], "--bundel: there is no such flag; did you mean --bundle?"),
        ("score", ["--data.root=x", "--device=gpu"], "--device: "),
        ("promote", [], "Give either challenger, a bundle that may become champion, or rollback"),
        ("promote", ["--rollback", "--margin=2"], "--margin: Input should be less than 0.5"),
    ],
)
def test_a_bad_flag_is_named(name, flags, message):
    done = command(name, *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_commands_of_the_page_run(contest, finished, champion, tmp_path, monkeypatch):
    """Those of docs/operate.md, as they stand there."""
    text = (PROJECT / "docs/operate.md").read_text("utf-8")
    section = text.partition("## Score every night")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = [line for line in commands.splitlines() if line.startswith("python flows/")]
    assert len(lines) >= 4
    store = tmp_path / "page"
    places = {
        "NEW_BUNDLE": contest["challenger"],
        "BUNDLE": str(champion),
        "REPORT": str(Path(contest["test"]).parent),
        "s3://images/new": finished[0].data,
        "s3://models/cxr": str(store),
    }
    for line in lines:
        for word, place in places.items():
            line = re.sub(rf"(?<![\w/]){word}(?!\w)", place, line)
        script, *flags = line.removeprefix("python flows/").partition(" #")[0].split()
        done = command(script.removesuffix(".py"), *flags, f"--store.scratch={tmp_path / 's'}")
        is_rollback = "--rollback" in flags  # the challenger is equal, so there is no way back
        assert (done.returncode, "only one bundle has ever" in done.stderr) == (
            (1, True) if is_rollback else (0, False)
        ), done.stderr
    assert json.loads((store / "_aliases/champion.json").read_text())["bundle"] == str(champion)
    assert len(pd.read_parquet(next((store / "_scores").iterdir()))) == 90
