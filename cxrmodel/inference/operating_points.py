"""Where a probability becomes a call: thresholds found on the bundle's validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.patient_bootstrap import Interval, PatientBootstrap
from cxrmodel.inference.bundle import Bundle

MIN_POSITIVES = 10
SHOWN = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "alerts_per_100": "alerts per 100",
}


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold of one label and what it gives on validation images.

    Attributes:
        label: What it is for.
        asked_for: As `sensitivity 0.9`.
        threshold: A probability from which on an image is called positive; None where undefined.
        rates: `sensitivity`, `specificity` and `alerts_per_100` images.
        intervals: 95 % intervals of these, patients resampled with the threshold kept.
        reason: Why it is undefined; empty where it is not.
    """

    label: str
    asked_for: str
    threshold: float | None
    rates: dict[str, float]
    intervals: dict[str, Interval]
    reason: str = ""

    def sentence(self) -> str:
        """Return it as a line for people."""
        if self.threshold is None:
            return f"{self.label}: {self.asked_for} is undefined, {self.reason}"
        parts = [
            f"{name} {self.rates[key]:.3g} ({self.intervals[key][0]:.3g} to "
            f"{self.intervals[key][1]:.3g})"
            for key, name in SHOWN.items()
            if key in self.intervals
        ]
        return f"{self.label}: threshold {self.threshold:.4f} gives {', '.join(parts)}"


def operating_points(
    bundle: Bundle,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    alerts_per_100: float | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> list[OperatingPoint]:
    """Find thresholds that give what is asked for on the validation images.

    Args:
        bundle: With its reference.
        sensitivity: Least share of positive images that are called, for every label.
        specificity: Least share of negative images that are not called, for every label.
        alerts_per_100: At most so many calls per 100 images, for every label.
        thresholds: By label, taken as they are; they come before what is asked of every label.

    Returns:
        A point per label that something was asked for, in the bundle's order.

    Raises:
        ValueError: More than one of the three is given, or a threshold is for no label.
    """
    asked = {
        name: value
        for name, value in (
            ("sensitivity", sensitivity),
            ("specificity", specificity),
            ("alerts_per_100", alerts_per_100),
        )
        if value is not None
    }
    fixed = dict(thresholds or {})
    if len(asked) > 1:
        raise ValueError(f"Give one of {' and '.join(asked)}: a threshold can meet only one.")
    if unknown := sorted(set(fixed) - set(bundle.labels)):
        raise ValueError(
            f"{unknown[0]!r} is no label; the labels are {', '.join(bundle.labels) or 'none'}."
        )
    points = []
    for label in bundle.labels:
        if label in fixed:
            points.append(_describe(bundle, label, f"threshold {fixed[label]:g}", fixed[label]))
        elif asked:
            ((name, value),) = asked.items()
            points.append(_find(bundle, label, name, value))
    return points


def _find(bundle: Bundle, label: str, name: str, value: float) -> OperatingPoint:
    asked_for = f"{SHOWN[name]} {value:g}"
    labels, scores = _reference_of(bundle, label)
    num_positive, num_negative = int((labels == 1).sum()), int((labels == 0).sum())
    num = {"sensitivity": num_positive, "specificity": num_negative}.get(name, len(labels))
    if num < MIN_POSITIVES:
        kind = {"sensitivity": "positive ", "specificity": "negative "}.get(name, "")
        reason = f"as validation has {num} {kind}images, fewer than {MIN_POSITIVES}"
        return OperatingPoint(label, asked_for, None, {}, {}, reason)
    if name == "sensitivity":
        threshold = _least_with_share(scores[labels == 1], value)
    elif name == "specificity":
        threshold = _above_share(scores[labels == 0], value)
    else:
        threshold = _above_share(scores, 1 - value / 100)
    return _describe(bundle, label, asked_for, threshold)


def _least_with_share(scores: NDArray[np.float64], share: float) -> float:
    """Return the highest score that at least such a share of the scores reaches."""
    ordered = np.sort(scores)[::-1]
    return float(ordered[max(1, _ceil(share * len(ordered))) - 1])


def _above_share(scores: NDArray[np.float64], share: float) -> float:
    """Return the least threshold that at least such a share of the scores does not reach."""
    ordered = np.sort(scores)
    kept = _ceil(share * len(ordered))
    return 0.0 if kept == 0 else float(np.nextafter(np.float32(ordered[kept - 1]), np.float32(2)))


def _ceil(value: float) -> int:
    return int(np.ceil(value - 1e-9))  # 0.9 of 10 is 9, whatever the last bit says


def _describe(bundle: Bundle, label: str, asked_for: str, threshold: float) -> OperatingPoint:
    labels, scores = _reference_of(bundle, label)
    bootstrap = PatientBootstrap(bundle.reference["patient"].to_numpy())
    called, positive, negative = scores >= threshold, labels == 1, labels == 0
    # Of each: in how many images it could be so, and in how many it is.
    shares = {
        "sensitivity": (called & positive, positive),
        "specificity": (~called & negative, negative),
        "alerts_per_100": (100.0 * called, np.ones_like(called)),
    }
    rates: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for name, (hits, of) in shares.items():
        part, whole = hits.astype(np.float64), of.astype(np.float64)
        estimate = bootstrap.ratio(part, whole, np.ones(len(of), bool), "there is no such image")
        if estimate.value is not None:
            rates[name] = estimate.value
        if estimate.interval is not None:
            intervals[name] = estimate.interval
    return OperatingPoint(label, asked_for, float(threshold), rates, intervals)


def _reference_of(bundle: Bundle, label: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the labels of the validation images, NaN where unknown, and their probabilities."""
    labels = bundle.reference[f"y_{label}"].to_numpy(np.float64, na_value=np.nan)
    return labels, bundle.reference[f"p_{label}"].to_numpy(np.float64)
