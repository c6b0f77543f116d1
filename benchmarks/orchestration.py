"""What Prefect costs: the time of a flow less that of the library, cold and fully cached.

Runs on a server that stays up and runs that start a server of their own take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cxrmodel.phantom import write_phantoms
from cxrmodel.storage.layout import MANIFEST_FILE
from tests.servers.prefect_server import open_server

NUM_IMAGES, SIZE_PX = 90, 64
SETTINGS = ("--vae.epochs=1", "--vae.batch_size=16", "--classifier.epochs=1",
            "--report.num_reconstructions=1", "--report.tsne_points=50",
            "--runtime.device=cpu")  # fmt: skip

# Runs the flow as the command line does, and prints when the flow began and ended; the process
# has its libraries loaded by then. Time before is that of starting, and of a server of its own.
RUN = """
import json, sys, time
from flows import terminal
terminal.before_imports()
from flows import command_line, main
times = {}
class Timed:
    def with_options(self, **options):
        flow = main.train_pipeline.with_options(**options)
        def run(config, refresh):
            times["began"] = time.time()
            report_and_bundle = flow(config, refresh)
            times["ended"] = time.time()
            return report_and_bundle
        return run
command_line.run(Timed(), main.run_stages)
print(json.dumps(times))
"""


def measure_orchestration(work: Path, num_rounds: int) -> dict[str, Any]:
    """Return seconds, each the median over rounds.

    Args:
        work: Empty folder.
        num_rounds: Turns of each kind of run.

    Returns:
        For `server` (one that stays up) and `ephemeral` (of the run's own): `cold_overhead_s`, flow
        time of a first run less the time in its stages; `cached_flow_s`, flow time of a run that
        finds everything cached, all of it overhead; `cached_process_s`, the same from the start of
        the process to its end.
    """
    dataset = work / "dataset"
    write_phantoms(dataset, NUM_IMAGES, size_px=SIZE_PX)
    seconds: dict[str, dict[str, list[float]]] = {}
    (work / "server").mkdir()
    with open_server(work / "server") as server:
        url = {"PREFECT_API_URL": server["PREFECT_API_URL"]}
        for number in range(num_rounds):
            for name, env in {"server": url, "ephemeral": {}}.items():
                folder = work / f"{name}-{number}"
                found = seconds.setdefault(name, {})
                for key, value in _one_turn(dataset, folder, env).items():
                    found.setdefault(key, []).append(value)
    return {
        name: {key: round(statistics.median(values), 2) for key, values in found.items()}
        for name, found in seconds.items()
    }


def _one_turn(dataset: Path, folder: Path, env: dict[str, str]) -> dict[str, float]:
    cold_s, _ = run_once(dataset, folder, env)
    cached_s, process_s = run_once(dataset, folder, env)
    return {
        "cold_overhead_s": cold_s - library_seconds(folder / "store"),
        "cached_flow_s": cached_s,
        "cached_process_s": process_s,
    }


def run_once(dataset: Path, folder: Path, env: dict[str, str]) -> tuple[float, float]:
    """Run the pipeline in a process; return the seconds of the flow, and of the process."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "DO_NOT_TRACK": "1"}
    environment.pop("PREFECT_API_URL", None)
    places = (f"--data.root={dataset}", f"--store.root={folder}/store",
              f"--store.scratch={folder}/scratch", f"--images.size={SIZE_PX}")  # fmt: skip
    start = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", RUN, *places, *SETTINGS],
        env=environment | env,
        check=True,
        capture_output=True,
        text=True,
    )
    process_s = time.perf_counter() - start
    times = json.loads(ran.stdout.splitlines()[-1])
    return times["ended"] - times["began"], process_s


def library_seconds(store: Path) -> float:
    """Return how long the stages took whose results a store holds."""
    return sum(stage_seconds(store).values())


def stage_seconds(store: Path) -> dict[str, float]:
    """Return how long each stage of the one run in a store took, in the order of their ends."""
    manifests = sorted(store.glob(f"*/*/{MANIFEST_FILE}"), key=lambda path: path.stat().st_mtime)
    return {path.parts[-3]: json.loads(path.read_text())["seconds"] for path in manifests}
