"""A model at another site beside home: the change is the true one, and the interval holds it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from cxrmodel.evaluation.patient_bootstrap import PatientBootstrap
from cxrmodel.evaluation.sites import compare_places, score_place, unjudged_labels
from tests.evaluation.places import LABELS, OWN, WITHIN, draw_place, frozen

HOME, SITE = (1.6, 0.3), (0.9, 0.12)  # how well findings are told apart, and how frequent they are
SPREAD = np.sqrt(2 * (OWN**2 + WITHIN**2))
CHECKED = ("auroc", "brier", "excess", "excess_after")
NUM_SIMULATIONS, NUM_NAIVE = 60, 30


def macro(place, bring):
    bootstrap = PatientBootstrap(place.predictions.patients, num_resamples=1)
    return {name: one.value for name, one in score_place(place, bring, bootstrap).macro.items()}


@pytest.fixture(scope="module")
def bring():
    return frozen(draw_place(np.random.default_rng(1), *HOME))


@pytest.fixture(scope="module")
def truth(bring):
    """The true changes: of a very large draw; that of AUROC is known."""
    rng = np.random.default_rng(2)
    home, site = (macro(draw_place(rng, *kind, 40_000), bring) for kind in (HOME, SITE))
    found = {name: site[name] - home[name] for name in CHECKED}
    known = norm.cdf(SITE[0] / SPREAD) - norm.cdf(HOME[0] / SPREAD)
    assert found["auroc"] == pytest.approx(known, abs=0.005)
    return found | {"auroc": known}


def unrelated(place, first):
    """Take every image for one of another patient."""
    numbers = np.arange(place.predictions.num_images) + first
    return replace(place, predictions=replace(place.predictions, patients=numbers))


def held(rng, bring, truth, number, *, by_image=False):
    home, site = draw_place(rng, *HOME), draw_place(rng, *SITE, first=250)
    if by_image:
        home = unrelated(home, 0)
        site = unrelated(site, home.predictions.num_images)
    found = compare_places(site, home, bring, seed=number, num_resamples=150).macro
    return [found[name].interval[0] <= truth[name] <= found[name].interval[1] for name in CHECKED]


def test_intervals_of_the_change_hold_the_truth_as_often_as_they_say(bring, truth):
    rng = np.random.default_rng(10)
    by_patient = [held(rng, bring, truth, number) for number in range(NUM_SIMULATIONS)]
    by_image = [held(rng, bring, truth, n, by_image=True) for n in range(NUM_NAIVE)]
    assert np.mean(by_patient, axis=0).min() >= 0.9
    assert np.mean(by_image) < 0.85


def test_the_same_images_at_both_places_are_paired(bring):
    home = draw_place(np.random.default_rng(4), *HOME)
    found = compare_places(home, home, bring, num_resamples=50)
    assert found.num_shared_patients == 250
    for name in CHECKED:
        assert (found.macro[name].value, found.macro[name].interval) == (0, (0, 0)), name
    apart = replace(
        home, predictions=replace(home.predictions, patients=home.predictions.patients + 250)
    )
    low, high = compare_places(apart, home, bring, num_resamples=50).macro["auroc"].interval
    assert low < 0 < high


def test_scores_of_a_place_are_those_of_its_images_alone(bring):
    rng = np.random.default_rng(5)
    home, site = draw_place(rng, *HOME), draw_place(rng, *SITE, first=250)
    found = compare_places(site, home, bring, num_resamples=20)
    truth, told = site.predictions.labels, site.predictions.probabilities
    assert found.site.macro["excess"].value == pytest.approx((told - truth).mean())
    assert found.site.macro["brier"].value == pytest.approx(((told - truth) ** 2).mean())
    assert (found.site.num_images, found.site.num_patients) == (site.predictions.num_images, 250)
    called = told >= 0.5
    sensitivity = (called & (truth == 1)).sum(axis=0) / truth.sum(axis=0)
    assert found.site.macro["sensitivity"].value == pytest.approx(sensitivity.mean())
    change = found.site.macro["f1"].value - found.home.macro["f1"].value
    assert found.macro["f1"].value == pytest.approx(change)


def test_one_patient_has_scores_and_no_interval(bring):
    rng = np.random.default_rng(6)
    home, site = draw_place(rng, *HOME), draw_place(rng, *SITE, first=250)
    one = replace(site.predictions, patients=np.full(site.predictions.num_images, 250))
    found = compare_places(replace(site, predictions=one), home, bring, num_resamples=20)
    assert found.site.macro["brier"].value is not None
    assert found.site.macro["brier"].interval is None
    assert found.macro["brier"].interval is None
    assert "single patient" in found.macro["brier"].reason


def test_without_home_there_is_no_change(bring):
    found = compare_places(
        draw_place(np.random.default_rng(7), *SITE), None, bring, num_resamples=9
    )
    assert (found.home, found.macro) == (None, {})


def test_groups_and_shortcuts_are_looked_for_where_covariates_are_known(bring):
    site = draw_place(np.random.default_rng(8), *SITE, covariates=True)
    found = compare_places(site, None, bring, num_resamples=9).site
    assert {"F", "M", "AP", "PA", "F, AP"} <= set(found.subgroups)
    assert set(found.shortcuts) == {"view", "sex", "age", "follow-up"}
    assert sum(found.view.values()) == pytest.approx(1)


def test_labels_that_one_place_cannot_judge_are_named():
    rng = np.random.default_rng(9)
    home, site = draw_place(rng, *HOME).predictions, draw_place(rng, *SITE).predictions
    none, unknown = site.labels.copy(), home.labels.copy()
    none[:, 0] = 0
    unknown[:, 1] = np.nan
    assert unjudged_labels(replace(site, labels=none), replace(home, labels=unknown)) == {
        LABELS[0]: "no positive image at the site",
        LABELS[1]: "no labelled image among the home test images",
    }
    assert unjudged_labels(site, None) == {}
