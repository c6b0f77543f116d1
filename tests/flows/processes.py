"""Starts small runs in processes of their own, and looks at what they leave."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

# Forked from a server that has done the imports, which would take longer than the run.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.flows.small_run"])
ANSWER = "answer.json"
TIMEOUT_S = 240


def _run(root: Path, folder: Path, answer: str, kill_at: int) -> None:
    from tests.flows.small_run import run_stages  # noqa: PLC0415 - it imports all of the library

    run_stages(root, folder, folder / answer, kill_at)


def start(root: Path, folder: Path, *, answer: str = ANSWER, kill_at: int = 0) -> ForkServerProcess:
    """Start a run on the data of a root, with store and scratch in a folder."""
    folder.mkdir(exist_ok=True)
    process = FORKS.Process(target=_run, args=(root, folder, answer, kill_at))
    process.start()
    return process


def answer_of(process: ForkServerProcess, folder: Path, answer: str = ANSWER) -> dict[str, Any]:
    """Wait for a run that nobody kills and take what it wrote about itself."""
    process.join(TIMEOUT_S)
    assert process.exitcode == 0
    path = folder / answer
    content: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return content


def files_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
