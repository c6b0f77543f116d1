"""The page and the numbers of a model at another site."""

import json

import numpy as np
import pandas as pd
import pytest

from cxrmodel.evaluation.patient_bootstrap import Estimate
from cxrmodel.evaluation.sites import LocalGain, SiteFindings, compare_places
from cxrmodel.report.site import headline, write_site_report
from tests.evaluation.places import LABELS, draw_place, frozen


def findings(with_home=True, **changes):
    rng = np.random.default_rng(0)
    home = draw_place(rng, 1.6, 0.3, covariates=True)
    site = draw_place(rng, 0.6, 0.3, first=250, covariates=True)
    gain = LocalGain(50, 5, dict.fromkeys(("f1", "brier", "ece"), Estimate(0.01)), {"Mass": 1.0})
    found = {
        "comparison": compare_places(
            site, home if with_home else None, frozen(home), num_resamples=20
        ),
        "gain": gain if with_home else None,
        "left_out": {"Hernia": "the site has no such label"},
        "excluded": pd.DataFrame(
            [("score", "<b>.png", "damaged_image", "cut")] * 100,
            columns=["stage", "image", "reason", "detail"],
        ),
        "overlaps": {"pixels": 0, "near": 1, "patients": 2},
        "judged_overlaps": {"pixels": 0, "near": 0, "patients": 1},
        "num_left_out": 49,
        "refusals": {"inverted": 3},
        "num_home_images": 0,
        "notes": ["A note."],
        "origin": {
            "made_by": "cxrmodel",
            "bundle": {"digest": "d" * 64, "made_by": "cxrmodel", "data": "NIH"},
            "data": {"root": "/site", "fingerprint": "f" * 64},
            "settings": {
                "recalibrate": 50, "allow_overlap": ["patients"], "leave_out_overlap": True,
                "seed": 0,
            },
            "fingerprint": "a" * 64,
        },
    }  # fmt: skip
    return SiteFindings(**{**found, **changes})


@pytest.mark.parametrize("with_home", [True, False])
def test_the_page_asks_for_nothing_and_the_numbers_are_the_comparisons(tmp_path, with_home):
    found = findings(with_home)
    shown = write_site_report(found, pd.DataFrame({"image": ["a"]}), tmp_path, packages={})
    page = (tmp_path / "report.html").read_text()
    assert "://" not in page
    assert "&lt;b&gt;.png" in page
    num_entries = found.comparison.site.num_images + 49 + 100
    for part in ("1 image of those judged has the patient id", "would refuse 3 images", "A note.",
                 f"100 of {num_entries:,} entries", "49 images are left out"):  # fmt: skip
        assert part in page
    assert ("lower than at home" in page) == with_home
    assert ("What local labels would gain" in page) == with_home
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    auroc = found.comparison.site.macro["auroc"]
    assert metrics["site"]["macro"]["auroc"]["value"] == auroc.value
    assert tuple(metrics["site"]["macro"]["auroc"]["interval"]) == auroc.interval
    assert (metrics["home"] is not None) == with_home
    assert metrics["labels"] == list(LABELS)
    assert shown["macro AUROC"].startswith(f"{auroc.value:.3f}")
    assert (tmp_path / "figures" / "reliability.png").exists()
    assert (tmp_path / "figures" / "auroc.png").exists() == with_home


def test_the_headline_has_the_change_with_its_interval():
    found = findings()
    change = found.comparison.macro["auroc"]
    low, high = change.interval
    expected = f"change {change.value:+.3f} ({low:+.3f} to {high:+.3f})"
    assert headline(found)["macro AUROC"].endswith(expected)
