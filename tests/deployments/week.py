"""A team's week with the deployments: what it does, and the facts that have to hold after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun

from tests.deployments.hospital import FINDINGS, Hospital
from tests.deployments.site import STAGES, Api, Site
from tests.servers.prefect_server import wait_until
from tests.servers.s3 import client_of

BUCKET, STORE = "cxr", "store"
SETTINGS = (
    "--data.dataset=table",
    "--images.size=64",
    "--vae.batch_size=8",
    "--vae.lr=1e-3",
    "--latents.batch_size=16",
    "--classifier.batch_size=16",
    "--report.num_reconstructions=1",
    "--report.tsne_points=50",
    "--runtime.device=cpu",
)
HASTY = ("--vae.epochs=1", "--classifier.epochs=1")
PATIENT = ("--vae.epochs=3", "--classifier.epochs=40")
AT_FIRST, NEW, ELSEWHERE = range(400), range(400, 470), range(1000, 1100)
TRAIN, WEEKLY = "cxrmodel/train", "cxrmodel/train-weekly"
SCORE, MONITOR = "cxrmodel-score/score", "cxrmodel-monitor/monitor"
PROMOTE, EVALUATE = "cxrmodel-promote/promote", "cxrmodel-evaluate/evaluate"


@dataclass
class Week:
    """What the team has, and what has happened so far.

    Attributes:
        project: The copy of the code that runs are made of.
        site: The machine with the worker.
        api: Of the server.
        home: The team's own hospital.
        elsewhere: Another one.
        bundles: Places of the bundles so far.
        reports: Places of their reports.
        scored: Names of the images that the first champion has scored.
        num_watched: Runs of the monitor so far.
    """

    project: Path
    site: Site
    api: Api
    home: Hospital
    elsewhere: Hospital
    bundles: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    scored: set[str] = field(default_factory=set)
    num_watched: int = 0

    @property
    def store(self) -> str:
        """URL of the store."""
        return f"s3://{BUCKET}/{STORE}"

    def deploy(self, *settings: str) -> list[str]:
        """Deploy from the command line; returns what it says."""
        root = f"--data.root={self.home.root}"
        return self.site.deploy(self.project, *SETTINGS, root, *settings, store=self.store)

    def run(self, deployment: str, **settings: Any) -> UUID:
        """Run a deployment to its good end."""
        run = self.api.trigger(deployment, **settings)
        assert self.api.finish(run) == "Completed", self.api.log(run)
        return run

    def keys(self, prefix: str) -> set[str]:
        """Return what is in the bucket below a prefix of the store."""
        pages = client_of(self.site.env).get_paginator("list_objects_v2")
        start = f"{STORE}/{prefix}"
        found = pages.paginate(Bucket=BUCKET, Prefix=start)
        return {entry["Key"] for page in found for entry in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        """Return what is in the bucket under a key."""
        found = client_of(self.site.env).get_object(Bucket=BUCKET, Key=key)
        return bytes(found["Body"].read())

    def history(self) -> list[dict[str, Any]]:
        """Return who was champion, as the alias's file tells."""
        return list(json.loads(self.read(f"{STORE}/_aliases/champion.json"))["history"])

    def scores(self, bundle: str) -> pd.DataFrame:
        """Return all scores of a bundle."""
        digest = next(each["digest"] for each in self.history() if bundle.endswith(each["bundle"]))
        found = sorted(self.keys(f"_scores/{digest[:16]}/"))
        parts = [key for key in found if key.endswith(".parquet")]
        return pd.concat([pd.read_parquet(f"s3://{BUCKET}/{key}") for key in parts])

    def runs(self, deployment: str) -> list[FlowRun]:
        """Return the runs of a deployment, the latest last."""
        found = self.api.client.read_deployment_by_name(deployment)
        own = DeploymentFilter(id=DeploymentFilterId(any_=[found.id]))
        runs = self.api.client.read_flow_runs(deployment_filter=own)
        return sorted(runs, key=lambda run: run.expected_start_time)

    def next_watch(self) -> UUID:
        """Wait until the run of the monitor that the automation starts has ended well."""
        before = self.num_watched
        wait_until(lambda: len(self.runs(MONITOR)) > before, "the automation starts the monitor")
        run = self.runs(MONITOR)[before].id
        assert self.api.finish(run) == "Completed", self.api.log(run)
        self.num_watched += 1
        return run

    def drift_events(self) -> list[dict[str, Any]]:
        """Return the events that tell of drift."""
        wanted = {"filter": {"event": {"name": ["cxrmodel.drift"]}}}
        found = self.api.client.request("POST", "/events/filter", json=wanted)
        return list(found.json()["events"])


def everything_is_deployed_and_nothing_runs_by_itself(week: Week) -> None:
    """Deploying again changes nothing; every schedule is off."""
    week.home.take_images(AT_FIRST, folder="room1")
    assert {line.split()[0] for line in week.deploy(*HASTY)} == {"create"}
    assert {line.split()[0] for line in week.deploy(*HASTY)} == {"unchanged"}
    schedules = [x for each in week.api.client.read_deployments() for x in each.schedules]
    assert schedules
    assert not any(schedule.active for schedule in schedules)


def the_first_model_is_trained_and_promoted(week: Week) -> None:
    """Training leaves a bundle; the first challenger becomes champion."""
    train(week)
    week.run(PROMOTE, challenger=week.bundles[0], who="ann", why="the first one")
    (change,) = week.history()
    assert f"{week.store}/{change['bundle']}" == week.bundles[0]
    assert (change["who"], change["why"]) == ("ann", "the first one")


def train(week: Week, *flags: str) -> None:
    """Train as every week, as a user starts it, and note bundle and report."""
    command = [sys.executable, "-m", "prefect", "deployment", "run", WEEKLY, *flags]
    env = {**os.environ, **week.site.env}
    command += ["--watch", "--watch-interval=1"]
    subprocess.run(command, cwd=week.site.folder, env=env, check=True)
    run = week.runs(WEEKLY)[-1]
    assert run.state_name == "Completed", week.api.log(run.id)
    assert week.api.stages(run.id) == dict.fromkeys(STAGES, "Completed")
    for stage, places in (("bundle", week.bundles), ("report", week.reports)):
        folders = {"/".join(key.split("/")[:3]) for key in week.keys(f"{stage}/")}
        (new,) = {f"s3://{BUCKET}/{folder}" for folder in folders} - set(places)
        places.append(new)


def what_is_there_is_scored_and_does_not_drift(week: Week) -> None:
    """The champion scores every image once, and the monitor starts by itself."""
    scored(week, week.home.images)
    watch = week.next_watch()
    drift = week.api.artifacts(watch)["drift"]
    assert json.loads(drift) == [{"drift": "none"}]
    assert week.drift_events() == []


def scored(week: Week, new: set[str]) -> None:
    """Score, and check that it scored exactly what is new."""
    run = week.run(SCORE)
    rows = week.scores(week.bundles[0])
    names = rows["image"].str.removeprefix(f"{week.home.root}/")
    assert names.is_unique
    assert set(names) - week.scored == new
    assert (rows["status"] == "ok").equals(rows["p_Mass"].notna())  # a score or a reason
    week.scored |= set(names)
    table = {row["what"]: row["value"] for row in json.loads(week.api.artifacts(run)["scored"])}
    assert table["scored"].startswith(f"{len(new)} new or changed")


def images_of_another_detector_arrive_and_drift_is_told(week: Week) -> None:
    """Exactly what is new is scored; an event tells of drift, and a page shows it."""
    before = week.home.images
    week.home.take_images(NEW, folder="room2", is_blurred=True)
    scored(week, week.home.images - before)
    week.next_watch()
    wait_until(week.drift_events, "the event of drift is there")
    (event,) = week.drift_events()
    found = event["payload"]
    assert found["is_drift"]
    assert "room2" in {row["source"] for row in found["drifted"]}
    assert b"<h1>Drift in " in week.read(
        f"{found['location'].removeprefix(f's3://{BUCKET}/')}/drift.html"
    )


def the_champion_is_judged_at_another_site(week: Week) -> None:
    """A labelled site has its page beside home."""
    week.elsewhere.take_images(ELSEWHERE, folder="images", is_blurred=True)
    run = week.run(EVALUATE, data__root=week.elsewhere.root, data__dataset="table")
    table = {row["what"]: row["value"] for row in json.loads(week.api.artifacts(run)["site"])}
    place = table["report"].removeprefix(f"s3://{BUCKET}/").rpartition("/")[0]
    assert f"{place}/report.html" in week.keys("_evaluations/")
    found = json.loads(week.read(f"{place}/metrics.json"))
    assert found["difference"]["per_class"].keys() == FINDINGS.keys()
    assert found["site"]["num_images"] == len(ELSEWHERE)
    assert found["home"]["num_images"] > 0
    rows = pd.read_parquet(f"s3://{BUCKET}/{place}/predictions.parquet")
    assert len(rows) == len(ELSEWHERE)


def a_retraining_on_more_patients_is_promoted_by_evidence(week: Week) -> None:
    """Nobody moves to another part; the better model becomes champion."""
    changed = [line for line in week.deploy(*PATIENT) if line.startswith("update ")]
    assert {line.split()[-1] for line in changed} >= {TRAIN, WEEKLY}
    train(week, "--param", "promote=true")
    before, after = (
        pd.read_parquet(f"{report}/split.parquet").set_index("image")["split"]
        for report in week.reports
    )
    assert len(after) == len(before) + len(NEW)
    assert after[before.index].equals(before)
    _, change = week.history()
    assert f"{week.store}/{change['bundle']}" == week.bundles[1]
    evidence = change["evidence"]
    assert evidence["is_better"]
    assert evidence["macro_auroc"]["gain"]["interval"][0] > 0
    assert evidence["test"] == f"{week.reports[1]}/test_predictions.parquet"


def the_new_champion_scores_anew_and_is_rolled_back(week: Week) -> None:
    """The first champion's scores stay; once it is back there is nothing new to score or tell."""
    before = week.scores(week.bundles[0])
    week.run(SCORE)
    week.next_watch()
    assert set(week.scores(week.bundles[1])["image"]) == set(before["image"])
    assert week.scores(week.bundles[0]).equals(before)
    command = [sys.executable, "flows/promote.py", "--rollback", "--why=too many alerts"]
    places = [f"--store.root={week.store}", f"--store.scratch={week.site.scratch}"]
    env = {**os.environ, **week.site.env}
    subprocess.run([*command, *places], cwd=week.project, env=env, check=True)
    first, second, third = week.history()
    assert third["digest"] == first["digest"]
    assert third["evidence"] == {"rolled_back": second["digest"]}
    scored(week, set())
    week.next_watch()  # sees the window that has drifted again, and does not tell of it again
    assert len(week.drift_events()) == 1


STEPS = (  # once everything is deployed and a worker is there
    the_first_model_is_trained_and_promoted,
    what_is_there_is_scored_and_does_not_drift,
    images_of_another_detector_arrive_and_drift_is_told,
    the_champion_is_judged_at_another_site,
    a_retraining_on_more_patients_is_promoted_by_evidence,
    the_new_champion_scores_anew_and_is_rolled_back,
)
