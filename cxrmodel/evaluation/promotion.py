"""Whether a challenger is better than the champion, judged on the same images of the same patients.

The gain is the difference in macro AUROC, challenger less champion; both are resampled with the
same patients, so the interval is that of the difference. A challenger is promoted where the lower
bound of the 95 % interval is above the margin: with a margin of 0 an equal one is promoted in about
2.5 % of the cases. A guarded label has to be shown not to fall by more than the tolerance. Source:
G. Piaggio et al., Reporting of noninferiority and equivalence randomized trials, JAMA 308 (2012).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.metrics import estimate_auroc
from cxrmodel.evaluation.patient_bootstrap import (
    NUM_RESAMPLES,
    Estimate,
    Floats,
    PatientBootstrap,
)

SIDES = ("champion", "challenger")


@dataclass(frozen=True)
class Rules:
    """What a challenger has to show.

    Attributes:
        margin: The lower bound of the gain in macro AUROC is above it.
        guard: Labels that must not get worse.
        tolerance: Fall in AUROC of a guarded label that is accepted.
    """

    margin: float = 0.0
    guard: tuple[str, ...] = ()
    tolerance: float = 0.02


@dataclass(frozen=True)
class HeldOut:
    """Images that neither model was trained on, with what both tell of them.

    Attributes:
        labels: C names that both models tell.
        truth: (N, C), 1 or 0, NaN where nobody said.
        champion: (N, C), probabilities.
        challenger: Likewise.
        patients: (N,), numbered from 0 upwards.
    """

    labels: tuple[str, ...]
    truth: Floats
    champion: Floats
    challenger: Floats
    patients: NDArray[np.int64]


@dataclass(frozen=True)
class Judgement:
    """What was found.

    Attributes:
        is_better: Whether the challenger may be promoted.
        reasons: Sentences that say why, or why not.
        macro: Macro AUROC of `champion` and of `challenger`, and their `gain`.
        gains: Change in AUROC by label.
        num_images: Images judged by.
        num_patients: Their patients.
    """

    is_better: bool
    reasons: tuple[str, ...]
    macro: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]
    num_images: int
    num_patients: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON, for the alias's history."""
        return {
            "is_better": self.is_better,
            "reasons": list(self.reasons),
            "macro_auroc": {name: _numbers(found) for name, found in self.macro.items()},
            "gain_in_auroc": {label: _numbers(found) for label, found in self.gains.items()},
            "num_images": self.num_images,
            "num_patients": self.num_patients,
        }


def judge(
    images: HeldOut, rules: Rules, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Judgement:
    """Judge a challenger.

    Args:
        images: With what both models tell of them.
        rules: What it has to show.
        seed: Seed of the bootstrap.
        num_resamples: Of the bootstrap.

    Raises:
        ValueError: A guarded label is not among those that both models tell.
    """
    for label in rules.guard:
        if label not in images.labels:
            raise ValueError(
                f"guard names {label!r}, and the labels of both bundles and of the test table are "
                f"{', '.join(images.labels)}."
            )
    bootstrap = PatientBootstrap(images.patients, num_resamples=num_resamples, seed=seed)
    scores = {side: _aurocs(bootstrap, images, getattr(images, side)) for side in SIDES}
    macro = {side: _macro(bootstrap, found) for side, found in scores.items()}
    macro["gain"] = bootstrap.difference(macro["challenger"], macro["champion"])
    gains = {
        label: bootstrap.difference(new, old)
        for label, new, old in zip(
            images.labels, scores["challenger"], scores["champion"], strict=True
        )
    }
    checks = [_gain(macro["gain"], rules.margin)]
    checks += [_guarded(label, gains[label], rules.tolerance) for label in rules.guard]
    is_better = all(passed for passed, _ in checks)
    reasons = tuple(text for passed, text in checks if is_better or not passed)
    num_patients = len(np.unique(images.patients))
    return Judgement(is_better, reasons, macro, gains, len(images.patients), num_patients)


def _aurocs(bootstrap: PatientBootstrap, images: HeldOut, scores: Floats) -> list[Estimate]:
    found = []
    for column in range(len(images.labels)):
        truth = images.truth[:, column]
        known = ~np.isnan(truth)
        labels = np.where(known, truth, 0).astype(np.uint8)
        found.append(estimate_auroc(bootstrap, labels, scores[:, column], known))
    return found


def _macro(bootstrap: PatientBootstrap, classes: Sequence[Estimate]) -> Estimate:
    defined = [one for one in classes if one.value is not None]
    if not defined:
        return Estimate.undefined("no label has both positive and negative images in the test")
    return bootstrap.macro(classes, np.stack([one.resamples for one in defined], axis=-1))


def _gain(gain: Estimate, margin: float) -> tuple[bool, str]:
    if gain.interval is None:
        return False, f"Nothing can be told: {gain.reason or 'there is one test patient or none'}."
    passed = gain.interval[0] > margin
    verb = "is" if passed else "is not"
    return passed, f"The gain in macro AUROC, {_shown(gain)}, {verb} above {margin:g}."


def _guarded(label: str, gain: Estimate, tolerance: float) -> tuple[bool, str]:
    if gain.interval is None:
        return False, f"{label} is guarded, and nothing can be told: {gain.reason or 'too few'}."
    passed = gain.interval[0] > -tolerance
    verb = "does not fall" if passed else "may fall"
    return passed, f"{label} {verb} by more than {tolerance:g}: {_shown(gain)}."


def _shown(estimate: Estimate) -> str:
    assert estimate.value is not None and estimate.interval is not None  # noqa: S101
    low, high = estimate.interval
    return f"{estimate.value:+.4f} ({low:+.4f} to {high:+.4f})"


def _numbers(estimate: Estimate) -> dict[str, Any]:
    if estimate.value is None:
        return {"value": None, "reason": estimate.reason}
    interval = list(estimate.interval) if estimate.interval else None
    return {"value": estimate.value, "interval": interval}
