"""A small sweep as a user runs it: shared stages, a setting that fails, a restart, the page."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.flows.conftest import SMALL
from tests.servers.prefect_server import wait_until

PROJECT = Path(__file__).parents[2]
SETTINGS = {
    "plain": {},
    "breaks": {"vae": {"lr": 1e30}},
    "standardized": {"classifier": {"standardize": True}},
}


class Sweep:
    """A sweep of the small images in a folder of its own."""

    def __init__(self, folder, images, env):
        self.folder, self.env = folder, {**os.environ, **env, "PYTHONPATH": str(PROJECT)}
        self.base = [
            f"--data.root={images}",
            f"--store.root={folder / 'store'}",
            f"--store.scratch={folder / 'scratch'}",
            *SMALL,
        ]

    def start(self, settings, *flags, seeds=2):
        file = self.folder / "mine.yaml"
        file.write_text(yaml.safe_dump({"settings": settings, "seeds": seeds}, sort_keys=False))
        return subprocess.Popen(
            [sys.executable, str(PROJECT / "flows/sweep.py"), str(file), *self.base, *flags],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, settings, *flags, seeds=2):
        process = self.start(settings, *flags, seeds=seeds)
        output, _ = process.communicate(timeout=400)
        return process.returncode, output

    def artifacts(self, stage):
        return sorted(
            path.parent.name for path in self.folder.glob(f"store/{stage}/*/manifest.json")
        )

    def file(self, name):
        return self.folder / "store/_sweeps/mine" / name


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, images, prefect_env):
    return Sweep(tmp_path_factory.mktemp("sweep"), images, prefect_env)


@pytest.fixture(scope="module")
def plan(sweep):
    """What was planned before anything had run."""
    code, output = sweep.run(SETTINGS, "--dry-run")
    assert code == 0, output
    assert not (sweep.folder / "store").exists()
    return dict(line.split(maxsplit=1) for line in output.splitlines() if "would run" in line)


@pytest.fixture(scope="module")
def first(sweep, plan):
    """A run of all settings, of which one fails."""
    return sweep.run(SETTINGS)


def test_what_settings_share_runs_once_as_planned(sweep, plan, first):
    assert plan["index"] == "5 shared, 1 would run"
    assert plan["vae"] == "2 shared, 4 would run"  # of which two fail
    assert plan["classifier"] == "6 would run"
    assert len(sweep.artifacts("index")) == len(sweep.artifacts("baselines")) == 1
    assert len(sweep.artifacts("vae")) == 2
    assert len(sweep.artifacts("classifier")) == len(sweep.artifacts("report")) == 4


def test_a_setting_that_fails_is_named_and_the_others_go_on(sweep, first):
    code, output = first
    assert code == 1
    assert "error: 2 trainings failed: breaks (2). The others are on the page" in output
    numbers = json.loads(sweep.file("sweep.json").read_text())
    assert set(numbers["validation"]) == {"plain", "standardized"}
    assert [(one["setting"], one["seed"]) for one in numbers["failed"]] == [
        ("breaks", 0),
        ("breaks", 1),
    ]
    page = sweep.file("sweep.html").read_text()
    assert "<strong>breaks</strong>, seed 1: " in page
    assert "not finite" in page


def test_the_numbers_are_those_of_the_reports(sweep, first):
    numbers = json.loads(sweep.file("sweep.json").read_text())
    by_mean = {
        name: found["scores"]["macro_auroc"]["mean"]
        for name, found in numbers["validation"].items()
    }
    assert numbers["chosen"] == max(by_mean, key=by_mean.get)
    for run, score in zip(
        numbers["runs_of_chosen"], numbers["test_of_chosen"]["macro_auroc"]["values"], strict=True
    ):
        metrics = json.loads(Path(run["report"]).with_name("metrics.json").read_text())
        assert metrics["classifier"]["macro_auroc"] == score
        assert metrics["config"]["vae"]["seed"] == run["seed"]
        table = pd.read_parquet(Path(run["report"]).with_name("val_predictions.parquet"))
        own = numbers["validation"][numbers["chosen"]]
        position = own["seeds"].index(run["seed"])
        l1 = own["scores"]["l1"]["values"][position]
        assert l1 == pytest.approx(table["l1"].astype(float).mean())
        assert l1 == pytest.approx(metrics["vae"]["val_l1"], rel=1e-6)


def test_a_sweep_that_is_stopped_goes_on_where_it_was(sweep, first, tmp_path):
    more = {"plain": {}, "longer": {"vae": {"epochs": 400}}}
    process = sweep.start(more, seeds=1)
    work = sweep.folder / "scratch/work"
    wait_until(lambda: any(work.glob("vae-*/**/*")), "the training has begun", 120)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert output.rstrip().endswith("stopped; the same command goes on from here")
    assert sweep.artifacts("vae") == sweep.artifacts("vae")
    less = {"plain": {}, "standardized": SETTINGS["standardized"]}
    code, output = sweep.run(less)
    assert code == 0, output
    assert "Cached" in output
    assert "Finished in state Completed" not in [
        line for line in output.splitlines() if "'vae'" in line or "'classifier'" in line
    ]
    assert output.splitlines()[-1] == f"page:     {sweep.file('sweep.html')}"
    assert output.splitlines()[-2].startswith("chosen:   ")


def test_bad_input_ends_with_a_line_and_code_2(sweep):
    code, output = sweep.run({"a": {"vae": {"epochs": 0}}})
    assert code == 2
    assert output.splitlines()[-1].endswith("vae.epochs: Input should be greater than 0, got 0")
