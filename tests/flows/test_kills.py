"""SIGKILL at a random instant, again and again, then a run that is left alone."""

import json
import multiprocessing
import os
import random
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from cxrmodel.data.phantom import write_phantoms
from deployments.garbage import Garbage, old_scratch
from tests.flows.small_run import run_stages

ROUNDS, KILLS_A_ROUND = 4, 5
processes = multiprocessing.get_context("forkserver")  # a fresh process without the imports' time
processes.set_forkserver_preload([run_stages.__module__])


def start(root, folder, kill_at=0):
    folder.mkdir(exist_ok=True)
    arguments = (root, folder, folder / "answer.json", kill_at)
    process = processes.Process(target=run_stages, args=arguments)
    process.start()
    return process


def finish(process, folder):
    process.join(120)
    assert process.exitcode == 0
    return json.loads((folder / "answer.json").read_text())


def files_below(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def is_reclaimable(path):
    """Whether `python -m deployments gc` takes it away: half an upload, a draft, a half listing."""
    where = path.parts[:2]
    return path.suffix == ".partial" or where == ("scratch", "drafts") or ".partial" in path.parts[2]


@pytest.fixture(scope="module")
def small_films(tmp_path_factory):
    root = tmp_path_factory.mktemp("small-films")
    write_phantoms(root, 48, size_px=64)
    return root


@pytest.fixture(scope="module")
def undisturbed(small_films, tmp_path_factory):
    """Return the answer of a run that nobody kills, its seconds, and its files."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(small_films, tmp_path_factory.mktemp("first")) , tmp_path_factory.mktemp("x"))
    started = time.monotonic()
    answer = finish(start(small_films, folder), folder)
    return answer, time.monotonic() - started, files_below(folder)
