"""metrics.json: the numbers of a run under names that other programs can rely on.

A metric that the data cannot tell is null, and its reason is under `undefined` beside it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cxrmodel.data.datasets.registry import DATASETS
from cxrmodel.evaluation.audit.audit import Audit
from cxrmodel.evaluation.audit.localisation import NUM_TILES, GroupLocalisation, Localisation
from cxrmodel.evaluation.audit.shortcuts import Shortcut
from cxrmodel.evaluation.audit.subgroups import Subgroup, worse_off
from cxrmodel.evaluation.calibration import (
    MAX_BINS,
    Calibration,
    ClassCalibration,
    Reliability,
)
from cxrmodel.evaluation.evaluate import ClassEvaluation, Evaluation
from cxrmodel.evaluation.patient_bootstrap import LEVEL, NUM_RESAMPLES, Estimate
from cxrmodel.report.measure import OUTSIDE_TRAIN, TEST, Results
from cxrmodel.report.run import RunRecord, RunTables

METRICS_FILE = "metrics.json"
MAX_LISTED = 100  # pairs of duplicates


def build_document(tables: RunTables, results: Results, record: RunRecord) -> dict[str, Any]:
    """Return the content of metrics.json; intervals are `[low, high]`."""
    return {
        "data": _data(tables, record),
        "split": _split(tables, results, record),
        "vae": _vae(tables, results),
        "classifier": {
            **_evaluation(results.classifier),
            "calibration": _calibration(results.calibration),
            "per_class": {
                name: _class(entry) | _class_calibration(results.calibration.per_class[name])
                for name, entry in results.classifier.per_class.items()
            },
        },
        "baselines": {
            **{name: _evaluation(baseline) for name, baseline in results.baselines.items()},
            "reconstruction": tables.reconstruction,
        },
        "comparisons": _comparisons(results),
        "audit": build_audit(results.audit) | {"localisation": build_localisation(results)},
        "bootstrap": {"unit": "patient", "num_resamples": NUM_RESAMPLES, "level": LEVEL},
        "config": record.config,
        "timings_s": record.timings_s,
        "training_speed": {"images_per_s": None, "loader_wait": None} | record.training_speed,
        "provenance": {"code": None, "config": None, "packages": None} | record.provenance,
    }


def headline(document: dict[str, Any]) -> dict[str, float | None]:
    """Return the few numbers that stand for a run."""
    classifier, vae = document["classifier"], document["vae"]
    names = ("macro_auroc", "macro_average_precision", "macro_f1", "macro_f1_at_0_5")
    return {name: classifier[name] for name in names} | {
        name: vae[name] for name in ("val_l1", "test_l1", "test_psnr", "kl_nats", "active_units")
    }


def _data(tables: RunTables, record: RunRecord) -> dict[str, Any]:
    about = DATASETS[record.dataset]
    reasons = tables.excluded["reason"].value_counts().sort_index()
    return {
        "num_images": len(tables.images),
        "num_patients": int(tables.images["patient_id"].nunique()),
        "num_excluded": len(tables.excluded),
        "excluded_by_reason": {str(reason): int(count) for reason, count in reasons.items()},
        "fingerprint": record.data_fingerprint,
        "is_synthetic": record.is_synthetic,
        "dataset": record.dataset,
        "title": about.title,
        "url": about.url,
        "citation": about.citation,
    }


def _split(tables: RunTables, results: Results, record: RunRecord) -> dict[str, Any]:
    parts = tables.images["split"]
    return {
        "method": record.split_method,
        **{f"num_{part}": int((parts == part).sum()) for part in ("train", "val", "test")},
        "leaking_test_fraction": results.leaking_test_fraction,
        "undefined": {}
        if results.leaking_test_fraction is not None
        else {"leaking_test_fraction": "no test image"},
    }


def _vae(tables: RunTables, results: Results) -> dict[str, Any]:
    autoencoder = results.autoencoder
    document = _values(autoencoder.metrics)
    units = document["active_units"]
    return document | {
        "active_units": None if units is None else int(units),
        "epochs": len(tables.vae_history),
        "aggregate_kl_nats_by_dim": autoencoder.aggregate.kl_by_dimension().tolist()
        if autoencoder.aggregate
        else None,
        "latent_dim": int(tables.latents.columns.str.match(r"^mu_\d+$").sum()),
        "intervals": _intervals(autoencoder.metrics),
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **_values(_macro(evaluation.macro)),
        "intervals": _intervals(_macro(evaluation.macro)),
        "num_classes": _macro(evaluation.num_classes),
    }


def _comparisons(results: Results) -> dict[str, Any]:
    return {
        baseline: _macro({metric: _difference(one) for metric, one in differences.items()})
        for baseline, differences in results.differences.items()
    }


def _class(entry: ClassEvaluation) -> dict[str, Any]:
    return {
        **_values(entry.metrics),
        "num_positive": entry.num_positive,
        "num_positive_patients": entry.num_positive_patients,
        "intervals": _intervals(entry.metrics),
        "warning": entry.warning,
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        **_values(_macro(calibration.macro)),
        "intervals": _intervals(_macro(calibration.macro)),
        "method": "Platt scaling a class, fitted on validation",
        "max_bins": MAX_BINS,
        "brier_gain": _difference(calibration.gain),
    }


def _class_calibration(entry: ClassCalibration) -> dict[str, Any]:
    calibrator, errors = entry.calibrator, ("ece_before", "ece_after")
    return {
        "calibration": {
            **_values({name: entry.metrics[name] for name in errors}),
            "intervals": _intervals(entry.metrics),
            "brier_after": entry.metrics["brier_after"].value,
            "slope": calibrator.slope,
            "intercept": calibrator.intercept,
            "reason": calibrator.reason,
            "reliability_before": _reliability(entry.before),
            "reliability_after": _reliability(entry.after),
        }
    }


def _reliability(curve: Reliability) -> dict[str, list[float]]:
    return {
        "predicted": curve.predicted.tolist(),
        "observed": curve.observed.tolist(),
        "counts": curve.counts.tolist(),
    }


def _macro(by_metric: dict[str, Any]) -> dict[str, Any]:
    return {f"macro_{name}": value for name, value in by_metric.items()}


def _values(estimates: dict[str, Estimate]) -> dict[str, Any]:
    undefined = {name: one.reason for name, one in estimates.items() if one.value is None}
    return {name: one.value for name, one in estimates.items()} | {"undefined": undefined}


def _intervals(estimates: dict[str, Estimate]) -> dict[str, list[float]]:
    found = {name: one.interval for name, one in estimates.items()}
    return {name: list(interval) for name, interval in found.items() if interval is not None}


def _difference(difference: Estimate) -> dict[str, Any]:
    interval = difference.interval
    return {
        "difference": difference.value,
        "interval": None if interval is None else list(interval),
        "verdict": difference.verdict,
    }


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
        "subgroups": {name: _group(group) for name, group in audit.subgroups.items()},
        "worse_off": worse_off(audit.subgroups),
        "anomaly": {name: _estimate(estimate) for name, estimate in audit.anomaly.items()},
        "reconstruction": {
            name: {"num_images": group.num_images}
            | {score: _estimate(estimate) for score, estimate in group.quality.items()}
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
        "overall": _group(localisation.overall),
        "per_class": {name: _group(group) for name, group in localisation.per_class.items()},
    }


def _group(group: Subgroup | GroupLocalisation) -> dict[str, Any]:
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
        "reason": estimate.reason,
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
