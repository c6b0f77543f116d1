"""A small sweep as a user runs it: shared stages, a stop, a setting that fails, the page."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from flows.dry_run import describe_sweep
from flows.main import run_stages
from flows.sweep_file import read_command
from tests.flows.conftest import FINISHED
from tests.servers.prefect_server import wait_until

PROJECT = Path(__file__).parents[2]
SEED = 42  # that of the finished run
SETTINGS = {
    "plain": {},
    "breaks": {"vae": {"lr": 1e30}},
    "standardized": {"classifier": {"standardize": True}},
}


class Sweep:
    """A sweep on a copy of a finished run's store.

    Args:
        pipeline: Of the finished run.
        folder: For the sweep.
    """

    def __init__(self, pipeline, folder):
        self.store, self.scratch = folder / "store", folder / "scratch"
        shutil.copytree(pipeline.store, self.store)
        self._file = folder / "mine.yaml"
        self._env = {**os.environ, **pipeline.env, "PYTHONPATH": str(PROJECT)}
        places = (f"--store.root={self.store}", f"--store.scratch={self.scratch}")
        self._flags = [*pipeline.command()[2:], *places]

    def words(self, settings):
        """The words of the command after the program's name."""
        text = yaml.safe_dump({"settings": settings, "seeds": [SEED]}, sort_keys=False)
        self._file.write_text(text)
        return [str(self._file), *self._flags]

    def start(self, settings):
        return subprocess.Popen(
            [sys.executable, str(PROJECT / "flows/sweep.py"), *self.words(settings)],
            env=self._env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def file(self, name):
        return self.store / "_sweeps/mine" / name


@pytest.fixture(scope="module")
def sweep(finished, tmp_path_factory):
    return Sweep(finished[0], tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def plan(sweep):
    """What is planned before anything runs, by stage."""
    config, _ = read_command(sweep.words(SETTINGS))
    before = sorted(sweep.store.rglob("*"))
    lines = describe_sweep(config, run_stages).splitlines()
    assert sorted(sweep.store.rglob("*")) == before
    return dict(line.split(maxsplit=1) for line in lines[1:] if line)


@pytest.fixture(scope="module")
def stopped(sweep, plan):
    """A sweep that was stopped while its second training ran."""
    process = sweep.start({"plain": {}, "longer": {"vae": {"epochs": 5000}}})
    work = sweep.scratch / "work"
    wait_until(lambda: any(work.glob("vae-*/*")), "the training has begun", 200)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    return process.returncode, output


@pytest.fixture(scope="module")
def ended(sweep, stopped):
    """A sweep of which one setting fails, on what the stopped one has left."""
    process = sweep.start(SETTINGS)
    output, _ = process.communicate(timeout=400)
    return process.returncode, output


@pytest.fixture(scope="module")
def numbers(sweep, ended):
    return json.loads(sweep.file("sweep.json").read_text())


def test_the_plan_counts_what_settings_share_once(plan):
    for stage in ("index", "images", "split", "baselines"):
        assert plan[stage] == "2 shared, 1 cached"
    assert plan["vae"] == "1 shared, 1 cached, 1 would run"
    assert plan["pca_network"] == "1 shared, 1 cached, 1 would run"
    assert plan["latents"] == "1 shared, 1 cached, 1 unknown"
    assert plan["classifier"] == "1 cached, 1 would run, 1 unknown"
    assert plan["report"] == plan["bundle"] == "1 cached, 2 unknown"
    assert plan["together"] == "11 shared, 10 cached, 3 would run, 6 unknown"


def test_a_signal_stops_it_with_a_line_and_the_shells_exit_code(stopped):
    code, output = stopped
    assert code == 128 + signal.SIGTERM
    assert output.rstrip().endswith("stopped; the same command goes on from here")


def test_what_is_there_is_not_run_again(ended):
    states = Counter(FINISHED.findall(ended[1]))
    assert states["index", "Cached"] == states["split", "Cached"] == 3
    assert states["vae", "Cached"] == 2
    assert states["vae", "Failed"] == 1
    assert states["classifier", "Cached"] == states["classifier", "Completed"] == 1


def test_a_setting_that_fails_is_named_and_the_others_go_on(sweep, ended, numbers):
    code, output = ended
    assert code == 1
    place = sweep.file("sweep.html")
    line = f"error: 1 training failed: breaks (1). The others are on the page {place}"
    assert output.splitlines()[-1] == line
    assert set(numbers["validation"]) == {"plain", "standardized"}
    assert [(one["setting"], one["seed"]) for one in numbers["failed"]] == [("breaks", SEED)]
    page = place.read_text()
    assert f"<strong>breaks</strong>, seed {SEED}: The autoencoder diverged" in page


def test_the_numbers_are_those_of_the_reports(numbers):
    by_mean = {
        name: found["scores"]["macro_auroc"]["mean"]
        for name, found in numbers["validation"].items()
    }
    chosen = numbers["chosen"]
    assert chosen == max(by_mean, key=by_mean.get)
    (run,) = numbers["runs_of_chosen"]
    metrics = json.loads(Path(run["report"]).with_name("metrics.json").read_text())
    assert metrics["classifier"]["macro_auroc"] == numbers["test_of_chosen"]["macro_auroc"]["mean"]
    assert metrics["config"]["classifier"]["standardize"] is (chosen == "standardized")
    table = pd.read_parquet(Path(run["report"]).with_name("val_predictions.parquet"))
    l1 = numbers["validation"][chosen]["scores"]["l1"]["mean"]
    assert l1 == pytest.approx(table["l1"].astype(float).mean())
    assert l1 == pytest.approx(metrics["vae"]["val_l1"])
