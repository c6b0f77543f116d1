"""SIGKILL at a random instant, again and again, then a run that is left alone.

Two ways to draw the instant, from a seed: a moment of time, which falls into training mostly, and
one of the operations on files, which is where a half-written thing could come from.
"""

import random
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from cxrmodel.config import RECORDS_FOLDER
from cxrmodel.storage.layout import MANIFEST_FILE
from deployments.garbage import Garbage, old_scratch
from tests.flows.processes import answer_of, files_below, start


def is_temporary(path):
    """Half an upload, an unpublished draft, half a listing: what `gc` takes away."""
    return any(part.endswith(".partial") for part in path.parts) or path.parts[:2] == (
        "scratch",
        "drafts",
    )


def was_killed(process, delay_s):
    """Kill a process after a while; tell whether it had not ended by itself."""
    process.join(delay_s)
    process.kill()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize(("draws", "num_kills"), [("operations", 13), ("seconds", 7)])
def test_killed_at_random_and_run_again_all_is_as_if_nothing_had_happened(
    draws, num_kills, few_images, undisturbed, tmp_path
):
    (expected, seconds, files), folder = undisturbed, tmp_path / "run"
    draw = random.Random(num_kills)

    def check(process):
        assert answer_of(process, folder)["made"] == expected["made"]
        found = files_below(folder)
        assert files <= found
        assert [path for path in found - files if not is_temporary(path)] == []

    while num_kills:
        by_operation = draws == "operations"
        kill_at = draw.randint(1, expected["operations"]) if by_operation else 0
        process = start(few_images, folder, kill_at=kill_at)
        if was_killed(process, 60 if by_operation else draw.uniform(0, seconds)):
            num_kills -= 1
            continue
        check(process)  # it was through before its instant came: the next starts from nothing
        shutil.rmtree(folder)
    check(start(few_images, folder))


def finished_stages(pipeline):
    return len(list(pipeline.store.glob(f"*/*/{MANIFEST_FILE}")))


def kept(store):
    """The files of a store, but for the report, which tells how long it took, and the bundle."""
    others = ("report", "bundle", RECORDS_FOLDER)
    return {path for path in files_below(store) if path.parts[0] not in others}


def test_a_flow_killed_twice_leaves_nothing_that_gc_does_not_take(finished, pipeline_of, tmp_path):
    (alone, whole), killed = finished, pipeline_of(tmp_path / "killed")
    draw = random.Random(3)
    for num_stages in (1, 4):
        flow = killed.start()
        while finished_stages(killed) < num_stages:
            assert flow.poll() is None
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 2))
        flow.kill()
        flow.communicate()
    run = killed.run(timeout_s=400)
    assert run.code == 0, run.stderr
    assert run.metrics["classifier"] == whole.metrics["classifier"]
    garbage = Garbage(str(killed.store), timedelta(0))
    for entry in garbage.find():
        garbage.remove(entry)
    assert kept(killed.store) == kept(alone.store)
    left = files_below(killed.scratch) - files_below(alone.scratch)
    reclaimed = [Path(entry.path).name for entry in old_scratch(killed.scratch, timedelta(0))]
    assert all(path.parts[1] in reclaimed for path in left)
