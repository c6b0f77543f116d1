"""Where a probability becomes a call: thresholds found on the bundle's validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.patient_bootstrap import Interval, PatientBootstrap
from cxrmodel.inference.bundle import Bundle

MIN_IMAGES = 10  # of the kind that a rate is counted on
KINDS = {"sensitivity": "positive ", "specificity": "negative ", "alerts_per_100": ""}
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
        rates: `sensitivity`, `specificity` and `alerts_per_100` images; one that fewer than
            `MIN_IMAGES` images count for is not there.
        intervals: 95 % intervals of these, patients resampled with the threshold kept.
        reason: Why the threshold, or else a rate, is undefined; empty where none is.
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
        given = f" gives {', '.join(parts)}" if parts else ""
        missing = [name for key, name in SHOWN.items() if key not in self.rates]
        undefined = f"; undefined: {', '.join(missing)}, {self.reason}" if missing else ""
        return f"{self.label}: threshold {self.threshold:.4f}{given}{undefined}"


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
        thresholds: By label, in upper or lower case, taken as they are; they come before what is
            asked of every label.

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
    fixed = {_label(bundle, name): value for name, value in (thresholds or {}).items()}
    if len(asked) > 1:
        raise ValueError(f"Give one of {' and '.join(asked)}: a threshold can meet only one.")
    points = []
    for label in bundle.labels:
        if label in fixed:
            points.append(_describe(bundle, label, f"threshold {fixed[label]:g}", fixed[label]))
        elif asked:
            ((name, value),) = asked.items()
            points.append(_find(bundle, label, name, value))
    return points


def _label(bundle: Bundle, name: str) -> str:
    """Return the label of a name, whose case does not count unless it tells two labels apart."""
    same = [label for label in bundle.labels if label.casefold() == name.casefold()]
    if name in same:
        return name
    if len(same) != 1:
        known = ", ".join(bundle.labels) or "none"
        raise ValueError(f"{name!r} is no label; the labels are {known}.")
    return same[0]


def _find(bundle: Bundle, label: str, name: str, value: float) -> OperatingPoint:
    asked_for = f"{SHOWN[name]} {value:g}"
    labels, scores = _reference_of(bundle, label)
    if few := _too_few({name: _counts_for(labels)[name]}):
        return OperatingPoint(label, asked_for, None, {}, {}, few)
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
    called, of_each = scores >= threshold, _counts_for(labels)
    hits = {"sensitivity": called, "specificity": ~called, "alerts_per_100": 100.0 * called}
    rates: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for name, of in of_each.items():
        if of.sum() < MIN_IMAGES:
            continue
        part, whole = (hits[name] * of).astype(np.float64), of.astype(np.float64)
        estimate = bootstrap.ratio(part, whole, np.ones(len(of), bool), "there is no such image")
        if estimate.value is not None:
            rates[name] = estimate.value
        if estimate.interval is not None:
            intervals[name] = estimate.interval
    return OperatingPoint(label, asked_for, float(threshold), rates, intervals, _too_few(of_each))


def _counts_for(labels: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Return of each rate which images it is counted on."""
    everything = np.ones(len(labels), bool)
    return {"sensitivity": labels == 1, "specificity": labels == 0, "alerts_per_100": everything}


def _too_few(of_each: Mapping[str, NDArray[np.bool_]]) -> str:
    """Say of which kinds there are too few images; nothing where there are enough of each."""
    counts = {name: int(of.sum()) for name, of in of_each.items()}
    few = [
        f"{count} {KINDS[name]}image{'' if count == 1 else 's'}"
        for name, count in counts.items()
        if count < MIN_IMAGES
    ]
    return f"as validation has {' and '.join(few)}, fewer than {MIN_IMAGES}" if few else ""


def _reference_of(bundle: Bundle, label: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the labels of the validation images, NaN where unknown, and their probabilities."""
    labels = bundle.reference[f"y_{label}"].to_numpy(np.float64, na_value=np.nan)
    return labels, bundle.reference[f"p_{label}"].to_numpy(np.float64)
