"""A real Prefect server, a small data set, and the pipeline as a user starts it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cxrmodel.phantom import write_phantoms
from tests.flows.preloaded import Preloaded
from tests.flows.processes import answer_of, files_below, start
from tests.servers.prefect_server import open_server

PROJECT = Path(__file__).parents[2]
SMALL = (
    "--images.size=64",
    "--vae.epochs=2",
    "--vae.batch_size=8",
    "--vae.lr=1e-3",
    "--latents.batch_size=16",
    "--classifier.epochs=3",
    "--report.num_reconstructions=2",
    "--report.tsne_points=50",
    "--runtime.device=cpu",
)
FINISHED = re.compile(r"Task run '(\w+)' - Finished in state (\w+)\(")


@dataclass(frozen=True)
class Run:
    """What a user sees of a finished run."""

    code: int
    stdout: str
    stderr: str

    @property
    def states(self) -> dict[str, str]:
        """Final state of each stage, by name."""
        return dict(FINISHED.findall(self.stdout + self.stderr))

    @property
    def ran(self) -> set[str]:
        """Stages that were not cached."""
        stages = self.states.items() - {("source", "Completed"), ("results", "Completed")}
        return {name for name, state in stages if state != "Cached"}

    @property
    def report(self) -> Path:
        return Path(self.stdout.strip().splitlines()[-1].removeprefix("report: "))

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.report.parent / "metrics.json").read_text())


@dataclass(frozen=True)
class Pipeline:
    """The pipeline of one copy of the project, on one store and scratch.

    Attributes:
        project: The copy.
        data: Root of the data set.
        folder: Of store and scratch.
        env: Environment of a run, beside that of the tests.
        store_url: Of a store elsewhere.
        preloaded: Process with the imports of this copy and environment, to fork runs from;
            without it each run is a process of its own from the start.
    """

    project: Path
    data: str
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    store_url: str | None = None
    preloaded: Preloaded | None = None

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def command(self, *arguments: str) -> list[str]:
        return [
            sys.executable,
            str(self.project / "flows" / "main.py"),
            f"--data.root={self.data}",
            f"--store.root={self.store_url or self.store}",
            f"--store.scratch={self.scratch}",
            *SMALL,
            *arguments,
        ]

    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.env, "PYTHONPATH": str(self.project)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a run in a process of its own, as a user does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(),
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, timeout_s: float = 180) -> Run:
        if self.preloaded is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            words, env = self.command(*arguments)[2:], self.environment()
            return Run(*self.preloaded.run(words, env, self.folder, timeout_s))
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=timeout_s)
        return Run(process.returncode, stdout, stderr)


@pytest.fixture(scope="package")
def prefect_env(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Environment of a client of a real Prefect server on loopback."""
    with open_server(tmp_path_factory.mktemp("prefect")) as env:
        yield env


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Ninety small synthetic images in NIH's layout."""
    root = tmp_path_factory.mktemp("data")
    write_phantoms(root, 90, size_px=64)
    return root


@pytest.fixture(scope="package")
def pipeline_of(prefect_env, images, tmp_path_factory) -> Iterator[Callable[[Path], Pipeline]]:
    """The pipeline on the small images and the server, keeping its results in a given folder."""
    project = tmp_path_factory.mktemp("project")
    for package in ("cxrmodel", "flows", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / package, project / package, ignore=ignored)
    env = Pipeline(project, str(images), project, prefect_env).environment()
    preloaded = Preloaded(project / "flows" / "main.py", env, tmp_path_factory.mktemp("output"))
    yield lambda folder: Pipeline(project, str(images), folder, prefect_env, preloaded=preloaded)
    preloaded.kill()


@pytest.fixture(scope="package")
def finished(pipeline_of, tmp_path_factory) -> tuple[Pipeline, Run]:
    """One finished run, never touched again; tests compare with it, or work on copies."""
    pipeline = pipeline_of(tmp_path_factory.mktemp("finished"))
    run = pipeline.run(timeout_s=400)
    assert run.code == 0, run.stderr
    return pipeline, run


@pytest.fixture(scope="session")
def few_images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("few")
    write_phantoms(root, 40, size_px=64)
    return root


@pytest.fixture(scope="session")
def undisturbed(few_images, tmp_path_factory) -> tuple[dict[str, Any], float, set[Path]]:
    """Return what a small run tells that nobody disturbs, its seconds, and its files."""
    for name in ("warm", "undisturbed"):  # the first one waits for the imports
        folder, started = tmp_path_factory.mktemp(name), time.monotonic()
        answer = answer_of(start(few_images, folder), folder)
    return answer, time.monotonic() - started, files_below(folder)
