"""Scoring and promotion as a user runs them, on a bundle of a finished run."""

import json
import os
import re
import shlex
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
from pydantic_settings.exceptions import SettingsError

from cxrmodel.config import PipelineConfig
from cxrmodel.errors import DataError, NothingToJudgeError, StoreError
from cxrmodel.inference.bundle import write_checksums
from cxrmodel.inference.command_line import main as cxrmodel
from cxrmodel.inference.use_config import EvaluateConfig, PromoteConfig, ScoreConfig
from cxrmodel.phantom import write_phantoms
from cxrmodel.storage.aliases import Aliases
from deployments.definitions import deployments
from deployments.target import Target
from flows import command_line, promote
from flows.evaluate import evaluate_bundle
from flows.flags import read_flags
from flows.main import train_pipeline
from flows.promote import promote_bundle
from flows.score import score_images
from tasks.engine.records import records_beside
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
    return {
        "device": "cpu",
        "store": {"root": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")},
        "data": {"root": finished[0].data},
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


def test_without_an_image_to_judge_by_a_promotion_fails_and_the_end_of_a_training_refuses(
    contest, finished, tmp_path, champion
):
    table = pd.read_parquet(contest["test"]).head(3)
    split = next((finished[0].store / "split").iterdir()) / "split.parquet"
    of_train = pd.read_parquet(split).query("split == 'train'")["image"].head(3)
    table.assign(image=of_train.tolist()).to_parquet(tmp_path / "train.parquet")
    config = PromoteConfig(**contest | {"test": str(tmp_path / "train.parquet")})
    with pytest.raises(NothingToJudgeError, match=r"is left to judge by \(pixels of a train or"):
        promote_bundle(config)
    done = promote_bundle(config, must_judge=False)
    assert done["refused"] == contest["challenger"]
    assert "is left to judge by" in done["why"]
    assert Aliases(contest["store"]["root"]).find("champion") == str(champion)


def test_training_ends_with_a_promotion_where_asked(finished, tmp_path):
    pipeline, _ = finished
    shutil.copytree(pipeline.store, tmp_path / "store")
    flags = pipeline.command()[2:]
    flags += [f"--store.root={tmp_path / 'store'}", f"--store.scratch={tmp_path / 'scratch'}"]
    config = command_line.parse(flags).config
    for _ in range(2):  # the second time it is champion already
        with records_beside(config.store):
            _, bundle = train_pipeline(config, promote=True)
        history = Aliases(config.store.root).history("champion")
        assert [change.bundle for change in history] == [f"bundle/{bundle.key}"]


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


@pytest.mark.parametrize(
    "model, flags, message",
    [
        (ScoreConfig, [], "Give data.root, the folder or URL of the images."),
        (
            ScoreConfig,
            ["--data.root=phantom"],
            "`phantom` stands for synthetic images in a training",
        ),
        (ScoreConfig, ["--bundel=x"], "--bundel: there is no such flag; did you mean --bundle?"),
        (ScoreConfig, ["--data.root=x", "--device=gpu"], "--device: "),
        (PromoteConfig, [], "Give either challenger, a bundle that may become champion, or"),
        (PromoteConfig, ["--rollback", "--margin=2"], "--margin: Input should be less than 0.5"),
        (EvaluateConfig, [], "Give data.root, the folder or URL of the site's images."),
        (EvaluateConfig, ["--data.root=phantom"], "Give data.root, the folder or URL"),
        (EvaluateConfig, ["--data.root=x", "--allow_overlap=all"], "--allow_overlap: 'all' is not"),
        (EvaluateConfig, ["--data.root=x", "--recalibrate=5"], "--recalibrate: Input should be"),
        (EvaluateConfig, ["--data.root=x", "--data.datset=nih"], "mean --data.dataset?"),
    ],
)
def test_a_bad_flag_is_named(model, flags, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        read_flags(model, "python flows/x.py", flags)


def test_the_champion_is_judged_at_another_site(settings, champion, tmp_path):
    """Its own data set stands for the site, without the images that it was made with."""
    config = {**settings, "bundle": str(champion), "out": str(tmp_path / "site")}
    with pytest.raises(DataError, match=r"of 90 images have the patient id of a train or"):
        evaluate_bundle(EvaluateConfig(**config))
    assert not (tmp_path / "site").exists()
    others = EvaluateConfig(**config, leave_out_overlap=True)
    done = evaluate_bundle(others)
    assert done["report"] == f"{tmp_path / 'site'}/report.html"
    metrics = json.loads((tmp_path / "site" / "metrics.json").read_text())
    assert metrics["site"]["num_images"] == metrics["home"]["num_images"] > 0
    assert metrics["difference"]["macro"]["auroc"]["value"] == pytest.approx(0, abs=1e-6)
    page = (tmp_path / "site" / "report.html").read_text()
    assert "Chest X-ray model at another site" in page
    assert "the difference is paired there" in " ".join(page.split())
    first = {path.name: path.read_bytes() for path in (tmp_path / "site").glob("*.*")}
    assert evaluate_bundle(others) == done
    assert {path.name: path.read_bytes() for path in (tmp_path / "site").glob("*.*")} == first
    (tmp_path / "site" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt, and they would be lost"):
        evaluate_bundle(others)


def test_the_command_line_prints_what_was_done(settings, champion, prefect_env, tmp_path):
    flags = [f"--bundle={champion}", f"--data.root={settings['data']['root']}"]
    flags += [f"--out={tmp_path / 'out'}", f"--store.root={settings['store']['root']}"]
    flags += [f"--store.scratch={settings['store']['scratch']}"]
    done = subprocess.run(
        [sys.executable, PROJECT / "flows/score.py", *flags],
        env={**os.environ, **prefect_env, "PYTHONPATH": str(PROJECT)},
        check=True,
        text=True,
        capture_output=True,
    )
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines()[-3:])
    assert list(lines) == ["listed", "scored", "scores"]
    assert len(pd.read_parquet(lines["scores"].strip())) == 90


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """Another hospital's labelled images."""
    root = tmp_path / "elsewhere"
    write_phantoms(root, 30, seed=5, size_px=64)
    return root


def test_the_commands_of_the_page_run(contest, champion, elsewhere, tmp_path):
    """Those of docs/operate.md, as they stand there."""
    text = (PROJECT / "docs/operate.md").read_text("utf-8")
    section = text.partition("## A week in the life of a team")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    store = tmp_path / "page"
    words = {
        "NEW_BUNDLE": contest["challenger"],
        "BUNDLE": str(champion),
        "REPORT/test_predictions.parquet": contest["test"],
        "s3://images/new": contest["data"]["root"],
        "s3://images/site": str(elsewhere),
        "s3://models/cxr": str(store),
        "images/": contest["data"]["root"],
        "scores.parquet": str(tmp_path / "scores.parquet"),
    }
    done = []
    for line in commands.splitlines():
        given = [words.get(word, word) for word in shlex.split(line, comments=True)]
        if given[0] == "cxrmodel":
            cxrmodel(given[1:])
        elif given[0] == "prefect":
            check_run_of_deployment(given[1:])
        elif "--rollback" in given:  # the challenger is equal, so there is no way back
            with pytest.raises(StoreError, match="only one bundle has ever had it"):
                promote_bundle(read_flags(PromoteConfig, given[1], given[2:]))
        elif given[1] == "flows/score.py":
            done.append(score_images(read_flags(ScoreConfig, given[1], given[2:])))
        elif given[1] == "flows/evaluate.py":
            done.append(evaluate_bundle(read_flags(EvaluateConfig, given[1], given[2:])))
        else:
            done.append(promote_bundle(read_flags(PromoteConfig, given[1], given[2:])))
    kinds = [next(iter(each)) for each in done]
    assert kinds == ["promoted", "listed", "judged by", "refused"]
    assert len(pd.read_parquet(next((store / "_scores").iterdir()))) == 90
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 90


def check_run_of_deployment(given: list[str]) -> None:
    """A run of tests/deployments/test_week.py starts it; here, that it is one and may be so."""
    assert given[:2] == ["deployment", "run"]
    flow, _, name = given[2].partition("/")
    made = deployments(PipelineConfig(), Target(pool_type="process"))
    (wanted,) = (each.wanted() for each in made if each.label == f"deployment {flow}/{name}")
    names = [entry.partition("=")[0] for entry in given[4:]] if given[3:4] == ["--param"] else []
    assert set(names) <= set(wanted["parameter_openapi_schema"]["properties"])
