"""What the numbers of a run say, in sentences: the verdict, and what to worry about."""

from __future__ import annotations

from cxrmodel.evaluation.evaluate import Difference, Evaluation
from cxrmodel.evaluation.intervals import MIN_POSITIVES, Interval
from cxrmodel.report.inputs import RunRecord, RunTables
from cxrmodel.report.results import Results

# What a convolutional network on the pixels reaches on this data set: CheXNet reproductions.
PLAUSIBLE_AUROC = 0.85
PLAUSIBLE_F1 = 0.31
MANY_EXCLUDED = 0.01
FEW_ACTIVE = 0.1
NONE = "\u2013"  # an en dash


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with a fixed count of decimals, or a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def interval(bounds: Interval | list[float] | None, digits: int = 3, sign: str = "") -> str:
    """Write an interval as `low to high`, or a dash where there is none."""
    if bounds is None:
        return NONE
    low, high = bounds
    return f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share of 1 in percent."""
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Write a count with its noun in the right number."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def duration(seconds: float) -> str:
    """Write a wall time in the two units that matter."""
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def verdict(results: Results) -> str:
    """Say in one sentence whether the classifier beats the baseline that it should."""
    difference = results.differences["pca_logistic"]["auroc"]
    ours = results.classifier.macro["auroc"].value
    theirs = results.baselines["pca_logistic"].macro["auroc"].value
    if difference.value is None:
        return (
            "The test images cannot tell whether the classifier beats principal components with "
            "logistic regressions: no pathology has both positive and negative test images."
        )
    claim = {
        "higher": "The classifier on the latents beats",
        "lower": "The classifier on the latents is worse than",
        "unclear": "The classifier on the latents cannot be told apart from",
    }[difference.verdict]
    return (
        f"{claim} principal components with logistic regressions: macro AUROC {number(ours)} "
        f"against {number(theirs)}, {_difference(difference)}."
    )


def _difference(difference: Difference) -> str:
    text = f"a difference of {difference.value:+.3f}"
    if difference.interval is None:
        return f"{text}, without an interval: the test images are of one patient"
    return f"{text} (95 % interval {interval(difference.interval, sign='+')})"


def further_verdicts(results: Results, tables: RunTables) -> list[str]:
    """Say what F1 and the reconstructions are worth beside what costs nothing."""
    return [*_f1_verdict(results), *_reconstruction_verdict(results, tables)]


def _f1_verdict(results: Results) -> list[str]:
    difference = results.differences["all_positive"]["f1"]
    ours = results.classifier.macro["f1"].value
    theirs = results.baselines["all_positive"].macro["f1"].value
    if difference.value is None:
        return []
    claim = {
        "higher": "is higher than",
        "lower": "is lower than",
        "unclear": "cannot be told apart from",
    }[difference.verdict]
    return [
        f"Its macro F1 of {number(ours)} {claim} that of calling every image positive for "
        f"everything, {number(theirs)}."
    ]


def _reconstruction_verdict(results: Results, tables: RunTables) -> list[str]:
    ours = results.autoencoder.metrics["test_l1"].value
    names = {
        "pca_l1": f"{tables.reconstruction['num_components']} principal components",
        "thumbnail_16_l1": "a thumbnail of 16 pixels a side",
        "thumbnail_32_l1": "one of 32",
    }
    found = {name: tables.reconstruction[name] for name in names}
    others = {name: float(value) for name, value in found.items() if value is not None}
    if ours is None or len(others) < len(names):
        return []
    parts = [
        f"{'lower' if ours < value else 'higher'} than {names[name]} ({number(value, 4)})"
        for name, value in others.items()
    ]
    return [
        f"The reconstruction error of {number(ours, 4)} is {parts[0]}, {parts[1]} and {parts[2]}."
    ]


def worries(results: Results, tables: RunTables, record: RunRecord) -> list[str]:
    """Name what makes the numbers say less than they seem to, the gravest first."""
    return [
        *_synthetic(record),
        *_leak(results, record),
        *_too_good(results, record),
        *_undefined(results.classifier),
        *_few_positives(results.classifier),
        *_latents(results),
        *_excluded(tables),
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


def _excluded(tables: RunTables) -> list[str]:
    excluded, used = len(tables.excluded), len(tables.images)
    if excluded <= MANY_EXCLUDED * (excluded + used):
        return []
    return [
        f"{plural(excluded, 'row')} of the data set could not be used, beside "
        f"{plural(used, 'image')} that could: see the ledger for whether they are missing at "
        "random."
    ]


def names_of(names: list[str]) -> str:
    """List pathologies as prose."""
    return ", ".join(name.replace("_", " ") for name in names)
