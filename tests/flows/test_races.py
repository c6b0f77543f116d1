"""Two runs at once on one store and one scratch folder."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from cxrmodel.phantom import write_phantoms
from cxrmodel.storage.layout import MANIFEST_FILE
from tests.flows.processes import answer_of, files_below, start


def published(store):
    """Return the fingerprint of each artifact that exists, by stage."""
    made = {}
    for manifest in store.glob(f"*/*/{MANIFEST_FILE}"):
        content = json.loads(manifest.read_text())
        files = {name: record["sha256"] for name, record in content["files"].items()}
        made.setdefault(content["stage"], []).append(files)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_both_end_right_and_leave_what_one_leaves(seed, few_images, undisturbed, tmp_path):
    expected, seconds, files = undisturbed
    one = start(few_images, tmp_path / "run", answer="one.json")
    time.sleep(random.Random(seed).uniform(0, seconds / 4))
    other = start(few_images, tmp_path / "run", answer="other.json")
    for process, answer in ((one, "one.json"), (other, "other.json")):
        assert answer_of(process, tmp_path / "run", answer)["made"] == expected["made"]
    assert files_below(tmp_path / "run") == files


def test_synthetic_images_may_be_drawn_twice_at_once(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        drawings = [pool.submit(write_phantoms, tmp_path, 60, size_px=64) for _ in range(2)]
        for drawing in drawings:
            drawing.result()
    assert not list(tmp_path.rglob("*.part"))
    for path in tmp_path.glob("images/*.png"):
        with Image.open(path) as image:
            image.verify()


def test_two_flows_at_once_both_end_as_one_alone(finished, pipeline_of, tmp_path):
    alone, _ = finished
    shared = pipeline_of(tmp_path / "shared")
    flows = [shared.start(), shared.start()]
    try:
        for flow in flows:
            _, stderr = flow.communicate(timeout=400)
            assert flow.returncode == 0, stderr
    finally:
        for flow in flows:
            flow.kill()
    made, expected = published(shared.store), published(alone.store)
    reports, bundles = made.pop("report"), made.pop("bundle")
    (report,), (bundle,) = expected.pop("report"), expected.pop("bundle")
    assert made == expected
    timeless = {name: digest for name, digest in report.items() if name.startswith("figures/")}
    for one in reports:  # the page and metrics.json tell how long the stages took
        assert one.keys() == report.keys()
        assert timeless.items() <= one.items()
    assert all(one == bundle for one in bundles)  # for which it does not matter
    assert not list(shared.scratch.glob("drafts/*"))
    assert not list(shared.store.rglob("*.partial"))
