"""Two finished reports on one page, as a browser shows it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cxrmodel.report.comparison.finished_run import read_finished_run
from cxrmodel.report.comparison.page import compare_examples, render_comparison
from cxrmodel.report.figures.reconstructions import Selection, make_example
from cxrmodel.report.viewer import ErrorScale, write_examples
from tests.servers.browser import visit


def examples(names, factor):
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    l1 = (1 - float(factor)) / 2
    return [make_example(Selection(name, l1), ramp, ramp * factor) for name in names]


def test_images_are_those_that_all_show_in_the_first_ones_order():
    one = examples(["c.png", "a.png", "b.png"], np.float32(0.9))
    two = examples(["b.png", "c.png", "z.png"], np.float32(0.5))
    found = compare_examples({"A": one, "B": two})
    images = found.images["compared"]
    assert [shown.image for shown in images] == ["c.png", "b.png"]
    assert images[0].lines == ["c", "L1 A 0.0500, B 0.2500"]
    assert [view.label for view in images[0].views] == [
        "Original",
        "Reconstruction A",
        "Reconstruction B",
        "Error A",
        "Error B",
    ]
    assert len({view.url for view in images[0].views}) == 5
    assert found.scale == ErrorScale(0.5)  # B's errors reach it


def test_runs_without_an_image_in_common_have_none():
    one, two = (examples([name], np.float32(0.5)) for name in ("a.png", "b.png"))
    assert compare_examples({"A": one, "B": two}).images == {}


@pytest.fixture(scope="module")
def other(report, tmp_path_factory):
    """A run beside the made one: other reconstructions, seed and packages."""
    folder = tmp_path_factory.mktemp("reports") / "other"
    shutil.copytree(report[0], folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["config"]["split"]["seed"] = 7
    metrics["provenance"]["packages"]["torch"] = "2.14.0"
    (folder / "metrics.json").write_text(json.dumps(metrics))
    names = pd.read_parquet(folder / "viewer.parquet")["image"].tolist()
    write_examples([examples(names, np.float32(0.7))], 0.3, folder / "viewer.parquet")
    return folder


@pytest.fixture(scope="module")
def page(report, other, tmp_path_factory):
    path = tmp_path_factory.mktemp("comparison") / "page.html"
    runs = [read_finished_run(str(folder)) for folder in (report[0], other)]
    path.write_text(render_comparison(runs), encoding="utf-8")
    return path


def test_what_differs_is_listed_and_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    settings = text.split('id="settings"')[1].split("</section>")[0]
    assert "<code>split.seed</code></th><td><code>42</code></td><td><code>7</code>" in settings
    assert "<code>packages.torch</code>" in settings
    assert settings.count('scope="row"') == 2


def test_a_report_without_images_is_compared_without_them_and_named(report, other, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(other, bare, ignore=shutil.ignore_patterns("viewer.parquet", "figures"))
    page = render_comparison([read_finished_run(str(folder)) for folder in (report[0], bare)])
    assert "The reports show no test image in common." in page
    for file in ("viewer.parquet", "figures/samples.png"):
        assert f"B has no <code>{file}</code>: its report was written by an older version" in page
        assert f"A has no <code>{file}</code>" not in page
    assert 'alt="Samples of run A"' in page


@pytest.mark.integration
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_flips_between_runs_and_fits_the_window(browser, page, width):
    with visit(browser, page.as_uri(), width=width) as visited:
        shown = visited.page
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        image = shown.locator("button.image").first
        sources = image.locator("img").evaluate_all("all => all.map((one) => one.src)")
        image.click()
        viewer = shown.get_by_role("dialog")
        for name, source in (("Reconstruction A", sources[1]), ("Reconstruction B", sources[2])):
            viewer.get_by_role("button", name=name, exact=True).click()
            assert viewer.locator(".stage img").get_attribute("src") == source
        assert visited.errors == []
        assert visited.refused == []
