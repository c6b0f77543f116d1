"""The audit's part of metrics.json."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cxrmodel.evaluation.audit.audit import Audit
from cxrmodel.evaluation.audit.estimates import Estimate
from cxrmodel.evaluation.audit.localisation import NUM_TILES, GroupLocalisation, Localisation
from cxrmodel.evaluation.audit.shortcuts import Shortcut
from cxrmodel.evaluation.audit.subgroups import Subgroup, worse_off
from cxrmodel.evaluation.autoencoder import QUALITY
from cxrmodel.report.located import OUTSIDE_TRAIN, TEST
from cxrmodel.report.results import Results

MAX_LISTED = 100  # pairs of duplicates


def build_audit(audit: Audit) -> dict[str, Any]:
    """Return the audit as JSON values; an undefined score is null with its reason."""
    duplicates = audit.duplicates
    return {
        "duplicates": {
            "num_test_images": duplicates.num_test_images,
            "num_exact": len(duplicates.exact),
            "num_near": len(duplicates.near),
            "num_unchecked": duplicates.num_unchecked,
            "exact": [list(pair) for pair in duplicates.exact[:MAX_LISTED]],
            "near": [list(pair) for pair in duplicates.near[:MAX_LISTED]],
        },
        "shortcuts": {name: _shortcut(shortcut) for name, shortcut in audit.shortcuts.items()},
        "probes": {name: _estimate(estimate) for name, estimate in audit.probes.items()},
        "any_finding_threshold": audit.threshold.value,
        "subgroups": {name: _subgroup(group) for name, group in audit.subgroups.items()},
        "worse_off": worse_off(audit.subgroups),
        "anomaly": {name: _estimate(estimate) for name, estimate in audit.anomaly.items()},
        "reconstruction": {
            name: {"num_images": group.num_images}
            | {score: _estimate(getattr(group, score)) for score in QUALITY}
            for name, group in audit.reconstruction.items()
        },
    }


def build_localisation(results: Results) -> dict[str, Any] | None:
    """Return error maps against boxes, None where no film has a box."""
    found = {name: _located(located) for name, located in results.localisation.items()}
    if not found:
        return None
    return {
        "part": TEST,
        "num_tiles": NUM_TILES,
        **found[TEST],
        OUTSIDE_TRAIN: found.get(OUTSIDE_TRAIN),
    }


def _located(localisation: Localisation) -> dict[str, Any]:
    return {
        "overall": _cases(localisation.overall),
        "per_class": {name: _cases(group) for name, group in localisation.per_class.items()},
    }


def _cases(group: GroupLocalisation) -> dict[str, Any]:
    values = {field.name: getattr(group, field.name) for field in fields(group)}
    return {
        name: _estimate(value) if isinstance(value, Estimate) else value
        for name, value in values.items()
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = estimate.interval
    return {
        "value": estimate.value,
        "interval": None if interval is None else list(interval),
        "reason": estimate.metric.reason,
    }


def _shortcut(shortcut: Shortcut) -> dict[str, Any]:
    return {
        "alone": _estimate(shortcut.alone),
        "pooled": _estimate(shortcut.pooled),
        "within": _estimate(shortcut.within),
        "drop": _estimate(shortcut.drop),
        "by_stratum": {name: _estimate(one) for name, one in shortcut.by_stratum.items()},
        "is_notable": shortcut.is_notable,
    }


def _subgroup(group: Subgroup) -> dict[str, Any]:
    return {
        "num_images": group.num_images,
        "num_patients": group.num_patients,
        "num_abnormal": group.num_abnormal,
        "auroc": _estimate(group.auroc),
        "false_positive_rate": _estimate(group.false_positive_rate),
        "false_negative_rate": _estimate(group.false_negative_rate),
    }
