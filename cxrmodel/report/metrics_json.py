"""metrics.json: the numbers of a run under names that other programs can rely on.

A score that the data cannot define is null, and its reason is under `undefined` or `reason` beside
it. Intervals are `[low, high]`.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from cxrmodel.data.datasets.registry import about
from cxrmodel.evaluation.audit.audit import Audit
from cxrmodel.evaluation.audit.localisation import NUM_TILES
from cxrmodel.evaluation.audit.subgroups import worse_off
from cxrmodel.evaluation.calibration import MAX_BINS, Calibration, ClassCalibration
from cxrmodel.evaluation.evaluate import ClassEvaluation, Evaluation
from cxrmodel.evaluation.metrics import HEADLINE_METRICS
from cxrmodel.evaluation.patient_bootstrap import LEVEL, NUM_RESAMPLES, Estimate, Interval
from cxrmodel.report.measure import OUTSIDE_TRAIN, TEST, Results
from cxrmodel.report.run import Run

MAX_LISTED = 100  # pairs of duplicates


def build_document(run: Run, results: Results) -> dict[str, Any]:
    """Return the content of metrics.json."""
    record = run.record
    baselines = {name: _evaluation(baseline) for name, baseline in results.baselines.items()}
    return {
        "data": _data(run, results),
        "split": _split(run, results),
        "vae": _vae(run, results),
        "classifier": {
            **_evaluation(results.classifier),
            "labels": list(results.classifier.per_class),
            "labels_left_out": run.left_out,
            "calibration": _calibration(results.calibration),
            "per_class": {
                name: _class(entry) | _class_calibration(results.calibration.per_class[name])
                for name, entry in results.classifier.per_class.items()
            },
        },
        "baselines": baselines | {"reconstruction": run.compression},
        "comparisons": {
            baseline: _macro({metric: _difference(one) for metric, one in differences.items()})
            for baseline, differences in results.differences.items()
        },
        "audit": _audit(results.audit) | {"localisation": _localisation(results)},
        "bootstrap": {"unit": "patient", "num_resamples": NUM_RESAMPLES, "level": LEVEL},
        "config": record.config,
        "timings_s": record.timings_s,
        "training_speed": {"images_per_s": None, "loader_wait": None} | record.training_speed,
        "provenance": {"code": None, "config": None, "packages": None} | record.provenance,
    }


def headline(document: dict[str, Any]) -> dict[str, float | None]:
    """Return the few numbers that stand for a run."""
    classifier, vae = document["classifier"], document["vae"]
    names = ("val_l1", "test_l1", "test_psnr", "kl_nats", "active_units")
    return {f"macro_{name}": classifier[f"macro_{name}"] for name in HEADLINE_METRICS} | {
        name: vae[name] for name in names
    }


def _data(run: Run, results: Results) -> dict[str, Any]:
    image_set = about(run.record.dataset)
    reasons = run.excluded["reason"].value_counts().sort_index()
    return {
        "num_images": len(run.images),
        "num_patients": results.num_patients,
        "num_excluded": len(run.excluded),
        "excluded_by_reason": {str(reason): int(count) for reason, count in reasons.items()},
        "fingerprint": run.record.data_fingerprint,
        "is_synthetic": run.record.is_synthetic,
        "dataset": run.record.dataset,
        "labels": list(run.labels),
        "title": image_set.title,
        "url": image_set.url,
        "citation": image_set.citation,
    }


def _split(run: Run, results: Results) -> dict[str, Any]:
    leaking = results.leaking_test_fraction
    return {
        "method": run.record.split_method,
        **{f"num_{name}": part.num_images for name, part in results.parts.items()},
        "leaking_test_fraction": leaking,
        "undefined": {} if leaking is not None else {"leaking_test_fraction": "no test image"},
    }


def _vae(run: Run, results: Results) -> dict[str, Any]:
    metrics, aggregate = results.autoencoder.metrics, results.autoencoder.aggregate
    values = _values(metrics)
    units = values["active_units"]
    return values | {
        "active_units": None if units is None else int(units),
        "epochs": len(run.vae_history),
        "aggregate_kl_nats_by_dim": aggregate.kl_by_dimension().tolist() if aggregate else None,
        "latent_dim": run.latent_dim,
        "intervals": _intervals(metrics),
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    macro = _macro(evaluation.macro)
    return {
        **_values(macro),
        "intervals": _intervals(macro),
        "num_classes": _macro(evaluation.num_classes),
    }


def _class(entry: ClassEvaluation) -> dict[str, Any]:
    return {
        **_values(entry.metrics),
        "num_labelled": entry.num_labelled,
        "num_positive": entry.num_positive,
        "num_positive_patients": entry.num_positive_patients,
        "intervals": _intervals(entry.metrics),
        "warning": entry.warning,
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    macro = _macro(calibration.macro)
    return {
        **_values(macro),
        "intervals": _intervals(macro),
        "method": "Platt scaling a class, fitted on validation",
        "max_bins": MAX_BINS,
        "brier_gain": _difference(calibration.gain),
    }


def _class_calibration(entry: ClassCalibration) -> dict[str, Any]:
    errors = {name: entry.metrics[name] for name in ("ece_before", "ece_after")}
    return {
        "calibration": {
            **_values(errors),
            "intervals": _intervals(errors),
            "brier_after": entry.metrics["brier_after"].value,
            **plain(entry.calibrator),
            "reliability_before": plain(entry.before),
            "reliability_after": plain(entry.after),
        }
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
    return {
        "difference": difference.value,
        "interval": _pair(difference.interval),
        "verdict": difference.verdict,
    }


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _audit(audit: Audit) -> dict[str, Any]:
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
        "shortcuts": {
            name: plain(shortcut) | {"is_notable": shortcut.is_notable}
            for name, shortcut in audit.shortcuts.items()
        },
        "probes": plain(audit.probes),
        "any_finding_threshold": audit.threshold.value,
        "subgroups": plain(audit.subgroups),
        "worse_off": worse_off(audit.subgroups),
        "anomaly": plain(audit.anomaly),
        "sources": plain(audit.sources),
        "reconstruction": {
            name: {"num_images": group.num_images} | plain(group.quality)
            for name, group in audit.reconstruction.items()
        },
    }


def _localisation(results: Results) -> dict[str, Any] | None:
    """Return error maps against boxes, None where no image has a box."""
    found = plain(results.localisation)
    if not found:
        return None
    outside = found.get(OUTSIDE_TRAIN)
    return {"part": TEST, "num_tiles": NUM_TILES, **found[TEST], OUTSIDE_TRAIN: outside}


def plain(value: Any) -> Any:
    """Turn a dataclass, and what is in it, into what JSON can hold."""
    if isinstance(value, Estimate):
        return {"value": value.value, "interval": _pair(value.interval), "reason": value.reason}
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
