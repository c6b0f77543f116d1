"""What makes the numbers of a run say less than they seem to."""

from __future__ import annotations

from cxrmodel.data.ledger import losses
from cxrmodel.evaluation.audit.subgroups import worse_off
from cxrmodel.evaluation.evaluate import Evaluation
from cxrmodel.evaluation.intervals import MIN_POSITIVES
from cxrmodel.report.inputs import RunRecord, RunTables
from cxrmodel.report.results import Results
from cxrmodel.report.words import names_of, number, percent, plural

# What a convolutional network on the pixels reaches on this data set: CheXNet reproductions.
PLAUSIBLE_AUROC = 0.85
PLAUSIBLE_F1 = 0.31
FEW_ACTIVE = 0.1


def worries(results: Results, tables: RunTables, record: RunRecord) -> list[str]:
    """Name what makes the numbers say less than they seem to, the gravest first."""
    return [
        *_synthetic(record),
        *_leak(results, record),
        *_duplicates(results),
        *_too_good(results, record),
        *_shortcuts(results),
        *_undefined(results.classifier),
        *_few_positives(results.classifier),
        *_miscalibration(results),
        *_worse_off(results),
        *_latents(results),
        *tables.notes,
        *losses(tables.excluded, len(tables.images)),
    ]


def _synthetic(record: RunRecord) -> list[str]:
    if not record.is_synthetic:
        return []
    return [
        "The films are synthetic: no number here says anything about real chest X-rays. "
        "The run shows that the pipeline works."
    ]


def _leak(results: Results, record: RunRecord) -> list[str]:
    leaking = results.leaking_test_fraction
    if not leaking:
        return []
    method = (
        " The split by rows does not keep patients apart." if record.split_method == "rows" else ""
    )
    return [
        f"{percent(leaking)} of the test images belong to a patient that is also in train.{method} "
        "The classifier can recognise a patient instead of a pathology, and every score on test "
        "is too high."
    ]


def _duplicates(results: Results) -> list[str]:
    duplicates = results.audit.duplicates
    if not duplicates.num_test_images:
        return []
    return [
        f"{plural(duplicates.num_test_images, 'test image')} "
        f"{'is' if duplicates.num_test_images == 1 else 'are'} also in train or validation, "
        f"{len(duplicates.exact)} with equal and {len(duplicates.near)} with nearly equal pixels."
    ]


def _shortcuts(results: Results) -> list[str]:
    return [
        f"A shortcut: among images that share the {name}, macro AUROC is "
        f"{number(shortcut.within.value)} instead of {number(shortcut.pooled.value)}."
        for name, shortcut in results.audit.shortcuts.items()
        if shortcut.is_notable
    ]


def _miscalibration(results: Results) -> list[str]:
    calibration = results.calibration
    if calibration.gain.verdict != "lower":
        return []
    before, after = (calibration.macro[f"ece_{when}"].value for when in ("before", "after"))
    return [
        "The probabilities are miscalibrated: scaling that is fitted on validation makes them "
        f"better on test, with a calibration error of {number(after)} instead of {number(before)}."
    ]


def _worse_off(results: Results) -> list[str]:
    groups = worse_off(results.audit.subgroups)
    if not groups:
        return []
    return [f"Any listed finding is told apart less well in some groups: {'; '.join(groups)}."]


def _too_good(results: Results, record: RunRecord) -> list[str]:
    auroc, f1 = (results.classifier.macro[name].value or 0 for name in ("auroc", "f1"))
    found = []
    if auroc > PLAUSIBLE_AUROC and not record.is_synthetic:
        found.append(
            f"Macro AUROC {number(auroc)} is above what networks on the pixels are published to "
            f"reach on this data set, about {PLAUSIBLE_AUROC}: look for a leak before believing it."
        )
    if f1 > PLAUSIBLE_F1 and not record.is_synthetic:
        found.append(
            f"Macro F1 {number(f1)} is above what networks on the pixels are published to reach "
            f"on this data set, about {PLAUSIBLE_F1}: look for a leak, or for test images richer "
            "in findings than the whole, which raises F1."
        )
    return found


def _undefined(classifier: Evaluation) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, entry in classifier.per_class.items():
        for metric in ("auroc", "f1"):
            reason = entry.metrics[metric].reason
            if reason is not None and name not in reasons.setdefault(reason, []):
                reasons[reason].append(name)
    counts = classifier.num_classes
    if not reasons:
        return []
    listed = "; ".join(f"{reason} ({names_of(names)})" for reason, names in reasons.items())
    total = len(classifier.per_class)
    return [
        f"Some scores are undefined: {listed}. Macro AUROC is over {counts['auroc']} of {total} "
        f"pathologies, macro F1 over {counts['f1']}."
    ]


def _few_positives(classifier: Evaluation) -> list[str]:
    few = [
        name
        for name, entry in classifier.per_class.items()
        if entry.warning is not None and entry.num_positive
    ]
    if not few:
        return []
    return [
        f"{plural(len(few), 'pathology', 'pathologies')} with positive images of fewer than "
        f"{MIN_POSITIVES} test patients: {names_of(few)}. Their scores are chance as much as "
        "skill, and their intervals are themselves uncertain."
    ]


def _latents(results: Results) -> list[str]:
    active, total = (
        results.autoencoder.metrics["active_units"].value,
        len(results.autoencoder.kl_per_dim),
    )
    if active is None or active >= FEW_ACTIVE * total:
        return []
    return [
        f"Only {active:.0f} of {total} latent dimensions vary between images: the posterior has "
        "collapsed to the prior, or training has barely begun."
    ]
