"""A model at another site beside its home: the same scores of both, and the difference.

Thresholds and the scaling of probabilities are frozen: they come from home. Patients of both places
are drawn together, so that a patient, or an image, that is in both is drawn for both: where places
share patients, the difference is paired, and elsewhere it is that of two independent samples.
Source: B. Van Calster et al., Calibration: the Achilles heel of predictive analytics, BMC Medicine
17 (2019): mean calibration compares the mean probability with the share of positives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cxrmodel.evaluation.audit.shortcuts import Shortcut, measure_shortcut
from cxrmodel.evaluation.audit.subgroups import (
    SUBGROUPS,
    Strata,
    Subgroup,
    balanced_threshold,
    evaluate_subgroups,
    strata_of,
    subgroups,
)
from cxrmodel.evaluation.calibration import (
    Calibration,
    Calibrator,
    calibrate,
    judge_calibration,
)
from cxrmodel.evaluation.evaluate import Evaluation, evaluate_at
from cxrmodel.evaluation.metrics import METRICS, RATIOS, Labels, Ratio, Terms
from cxrmodel.evaluation.patient_bootstrap import (
    NUM_RESAMPLES,
    Estimate,
    Floats,
    PatientBootstrap,
)
from cxrmodel.evaluation.predictions import Predictions

AFTER = "_after"  # of a score of the scaled probabilities
ONE_PATIENT = "one of the two places has a single patient"


def _excess(labels: Labels | Floats, probabilities: Floats, _: Floats | float) -> Terms:
    difference = probabilities - labels
    return difference, np.ones_like(difference)


EXCESS = Ratio("Mean probability less share of positives", _excess, "image", uses_threshold=False)
COMPARED = {  # what a table calls each score that has a difference
    **METRICS,
    f"brier{AFTER}": "Brier, scaled",
    "excess": EXCESS.title,
    f"excess{AFTER}": f"{EXCESS.title}, scaled",
}
OF_PROBABILITIES = {  # further scores: the ratio, and whether it is of the scaled probabilities
    f"brier{AFTER}": (RATIOS["brier"], True),
    "excess": (EXCESS, False),
    f"excess{AFTER}": (EXCESS, True),
}

OVERLAPS = {  # of an image with those that the model was made with
    "pixels": "the pixels of a train or validation image",
    "near": "nearly the pixels of a train or validation image",
    "patients": "the patient id of a train or validation image",
}

Scores = dict[str, Estimate]


@dataclass(frozen=True)
class Place:
    """Labelled images of one place, with what the model tells of them.

    Attributes:
        predictions: N images; a patient who is in both places has the same number in both.
        images: N rows with `view`, `sex`, `age` and `follow_up`, any of them missing.
    """

    predictions: Predictions
    images: pd.DataFrame

    def of(self, labels: tuple[str, ...]) -> Place:
        """Return the same images with some of the labels alone."""
        columns = [self.predictions.pathologies.index(label) for label in labels]
        return replace(
            self,
            predictions=Predictions(
                labels,
                self.predictions.labels[:, columns],
                self.predictions.probabilities[:, columns],
                self.predictions.patients,
            ),
        )

    @property
    def abnormal(self) -> Floats:
        """(N,), 1 where any label is, 0 where none is, NaN where that is not known."""
        labels = self.predictions.labels
        positive = (labels == 1).any(axis=1)
        unknown = ~positive & np.isnan(labels).any(axis=1)
        return np.where(unknown, np.nan, positive)


@dataclass(frozen=True)
class Frozen:
    """What a model brings from home.

    Attributes:
        thresholds: By label.
        calibrators: By label.
        validation: Images that the threshold for any finding, and how frequent findings are in each
            group, come from.
    """

    thresholds: dict[str, Estimate]
    calibrators: dict[str, Calibrator]
    validation: Place

    def of(self, labels: tuple[str, ...]) -> Frozen:
        """Return what concerns some of the labels."""
        return Frozen(
            {label: self.thresholds[label] for label in labels},
            {label: self.calibrators[label] for label in labels},
            self.validation.of(labels),
        )


@dataclass(frozen=True)
class PlaceScores:
    """A model at one place.

    Attributes:
        num_images: Images.
        num_patients: Patients.
        evaluation: Scores by label and on average.
        calibration: Of the probabilities, before and after the scaling from home.
        macro: Means over labels of every score in `COMPARED`.
        per_class: The same by label.
        any_finding_threshold: Of the score for any of the labels, from validation at home.
        subgroups: By name.
        shortcuts: What the score owes to view, sex, age and visit.
        view: Share of the images by view; empty where it is not known.
    """

    num_images: int
    num_patients: int
    evaluation: Evaluation
    calibration: Calibration
    macro: Scores
    per_class: dict[str, Scores]
    any_finding_threshold: Estimate
    subgroups: dict[str, Subgroup]
    shortcuts: dict[str, Shortcut]
    view: dict[str, float]


@dataclass(frozen=True)
class SiteComparison:
    """A model at another site and at home.

    Attributes:
        site: There.
        home: At home; None where the model's test images are not known.
        macro: Site less home, by score; a macro average over the same labels.
        per_class: The same by label.
        num_shared_patients: Patients who are in both.
    """

    site: PlaceScores
    home: PlaceScores | None
    macro: Scores
    per_class: dict[str, Scores]
    num_shared_patients: int


@dataclass(frozen=True)
class LocalGain:
    """What labelled images of the site would gain.

    Attributes:
        num_images: How many were fitted on, each time.
        num_draws: How often they were drawn.
        gains: Macro F1, Brier score and calibration error (`ece`) on the images of other patients,
            with new thresholds and scaling less with those from home: the mean over draws, with
            an interval over draws and over resamples of the others.
        fitted: Share of the draws with enough patients of both kinds for a label.
    """

    num_images: int
    num_draws: int
    gains: dict[str, Estimate]
    fitted: dict[str, float]


@dataclass(frozen=True)
class SiteFindings:
    """All that is said of a model at a site.

    Attributes:
        comparison: Its figures there and at home.
        gain: What local labels would gain; None where nobody asked.
        left_out: Labels of either place that are not judged, and why.
        excluded: A row per image that is not used: `stage`, `image`, `reason`, `detail`.
        overlaps: How many images are of train or validation, by kind.
        judged_overlaps: How many of these were judged by all the same, by kind.
        num_left_out: Images that are not judged by, since they overlap.
        refusals: How many of the images judged by the model's input gate would refuse, by reason.
        num_home_images: How many of the images are test images at home.
        notes: What has to be known, a sentence each.
        origin: Versions, fingerprints and settings, as JSON.
    """

    comparison: SiteComparison
    gain: LocalGain | None
    left_out: dict[str, str]
    excluded: pd.DataFrame
    overlaps: dict[str, int]
    judged_overlaps: dict[str, int]
    num_left_out: int
    refusals: dict[str, int]
    num_home_images: int
    notes: list[str]
    origin: dict[str, Any]


def unjudged_labels(site: Predictions, home: Predictions | None) -> dict[str, str]:
    """Return the labels of both places that cannot be judged, and why.

    A macro average is of the same labels in both places, so each has to be defined in both.
    """
    reasons = {}
    for column, label in enumerate(site.pathologies):
        reason = _lack(site, column, "at the site")
        if not reason and home is not None:
            home_column = home.pathologies.index(label)
            reason = _lack(home, home_column, "among the home test images")
        if reason:
            reasons[label] = reason
    return reasons


def _lack(predictions: Predictions, column: int, where: str) -> str:
    labels, _, _ = predictions.of_class(column)
    if not len(labels):
        return f"no labelled image {where}"
    if labels.any() and not labels.all():
        return ""
    return f"no {'negative' if labels.any() else 'positive'} image {where}"


def compare_places(
    site: Place,
    home: Place | None,
    frozen: Frozen,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> SiteComparison:
    """Judge a model at a site and at home.

    Args:
        site: Images there, of labels that can be judged.
        home: Test images at home, of the same labels in the same order.
        frozen: What the model brings from home, for the same labels.
        seed: Seed of the bootstrap.
        num_resamples: Of the bootstrap.
    """
    own = site.predictions.patients
    other = own[:0] if home is None else home.predictions.patients
    bootstrap = PatientBootstrap(
        np.concatenate([other, own]), num_resamples=num_resamples, seed=seed
    )
    of_site = np.arange(len(other) + len(own)) >= len(other)
    there = score_place(site, frozen, bootstrap.only(of_site))
    if home is None:
        return SiteComparison(there, None, {}, {}, 0)
    here = score_place(home, frozen, bootstrap.only(~of_site))
    return SiteComparison(
        there,
        here,
        _changes(there.macro, here.macro, bootstrap),
        {
            label: _changes(scores, here.per_class[label], bootstrap)
            for label, scores in there.per_class.items()
        },
        len(np.intersect1d(own, other)),
    )


def _changes(site: Scores, home: Scores, bootstrap: PatientBootstrap) -> Scores:
    return {name: _change(found, home[name], bootstrap) for name, found in site.items()}


def _change(site: Estimate, home: Estimate, bootstrap: PatientBootstrap) -> Estimate:
    found = bootstrap.difference(site, home)
    if found.value is not None and (site.interval is None or home.interval is None):
        return Estimate(found.value, reason=ONE_PATIENT)
    return found


def score_place(place: Place, frozen: Frozen, bootstrap: PatientBootstrap) -> PlaceScores:
    """Judge a model at one place.

    Args:
        place: Images there.
        frozen: What the model brings from home.
        bootstrap: Of the images.
    """
    found, abnormal = place.predictions, place.abnormal
    evaluation = evaluate_at(frozen.thresholds, found, bootstrap)
    further = _further(found, frozen, bootstrap)
    threshold = balanced_threshold(frozen.validation.predictions, frozen.validation.abnormal)
    strata = {kind: values for kind, values in strata_of(place.images).items() if any_known(values)}
    rates = _rates(frozen.validation)
    groups = subgroups({kind: strata.get(kind, _nobody(found)) for kind in SUBGROUPS})
    return PlaceScores(
        found.num_images,
        len(np.unique(found.patients)),
        evaluation,
        judge_calibration(frozen.calibrators, found, bootstrap),
        evaluation.macro | {name: bootstrap.macro_of(scores) for name, scores in further.items()},
        {
            label: {name: entry.metrics[name] for name in METRICS}
            | {name: scores[column] for name, scores in further.items()}
            for column, (label, entry) in enumerate(evaluation.per_class.items())
        },
        threshold,
        evaluate_subgroups(found, abnormal, groups, threshold, bootstrap),
        {
            kind: measure_shortcut(found, abnormal, values, rates.get(kind, {}), bootstrap)
            for kind, values in strata.items()
        },
        _shares(strata.get("view", _nobody(found))),
    )


def _further(
    found: Predictions, frozen: Frozen, bootstrap: PatientBootstrap
) -> dict[str, list[Estimate]]:
    """Return each score of `OF_PROBABILITIES` of each label."""
    scaled = calibrate(frozen.calibrators, found)
    no_limits = np.full(len(found.pathologies), np.nan)
    return {
        name: ratio.estimate(scaled if is_scaled else found, no_limits, bootstrap)
        for name, (ratio, is_scaled) in OF_PROBABILITIES.items()
    }


def any_known(strata: Strata) -> bool:
    """Say whether the group of any image is known."""
    return any(name is not None for name in strata)


def _nobody(found: Predictions) -> Strata:
    return np.full(found.num_images, None, dtype=object)


def _shares(views: Strata) -> dict[str, float]:
    known = pd.Series(views, dtype=object).dropna()
    shares = known.value_counts(normalize=True).sort_index()
    return {str(name): float(share) for name, share in shares.items()}


def _rates(validation: Place) -> dict[str, dict[str, float]]:
    """Return the share of validation images with a finding by kind of group and group."""
    abnormal = validation.abnormal
    known = ~np.isnan(abnormal)
    found = {}
    for kind, values in strata_of(validation.images).items():
        shares = pd.Series(abnormal[known]).groupby(values[known]).mean()
        found[kind] = {str(name): float(share) for name, share in shares.items()}
    return found
