"""What the numbers of a run say: verdicts, worries, names, and how numbers are written."""

from __future__ import annotations

from cxrmodel.data.datasets.nih import NIH
from cxrmodel.data.datasets.registry import BETWEEN, about
from cxrmodel.data.ledger import losses
from cxrmodel.evaluation.audit.subgroups import worse_off
from cxrmodel.evaluation.evaluate import Evaluation
from cxrmodel.evaluation.patient_bootstrap import FEW_PATIENTS, Estimate, Interval
from cxrmodel.report.measure import Results
from cxrmodel.report.run import Run, RunRecord

NONE = "\u2013"  # an en dash
MODELS = {  # in the order in which they are listed, the hardest to beat first
    "classifier": "Classifier on latents",
    "pca_network": "PCA + the same network",
    "pca_logistic": "PCA + logistic regression",
    "metadata": "{known}, no pixel",
    "patient_memory": "Memory of the patient's other labels",
    "prevalence": "Prevalence in train",
    "all_positive": "Everything called positive",
}
ANOMALIES = {
    "reconstruction_error": "reconstruction error",
    "kl": "KL to the prior",
    "mahalanobis": "Mahalanobis distance from train latents with no listed finding",
}
RIVALS = {  # the baselines that the verdict names, and what it calls them
    "all_positive": "chance",
    "metadata": "{known} without a pixel",
    "patient_memory": "a memory of the patient's other labels",
    "pca_logistic": "principal components with logistic regressions",
    "pca_network": "principal components with the same network",
}
CLAIMS = {"higher": "beats", "unclear": "cannot be told apart from", "lower": "is worse than"}
# What a convolutional network on the pixels reaches on NIH's data set: CheXNet reproductions.
PLAUSIBLE_AUROC = 0.85
PLAUSIBLE_F1 = 0.31
FEW_ACTIVE = 0.1
MAX_NAMES = 14


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Write a number with a fixed count of decimals, or a dash where there is none."""
    return NONE if value is None else f"{value:{sign}z.{digits}f}"  # z: never -0.000


def interval(bounds: Interval | list[float] | None, digits: int = 3, sign: str = "") -> str:
    """Write an interval as `low to high`, or a dash where there is none."""
    if bounds is None:
        return NONE
    low, high = bounds
    return f"{number(low, digits, sign)} to {number(high, digits, sign)}"


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


def names_of(names: list[str]) -> str:
    """List pathologies as prose, as many of them as a sentence can hold."""
    listed = ", ".join(name.replace("_", " ") for name in names[:MAX_NAMES])
    return listed if len(names) <= MAX_NAMES else f"{listed} and {len(names) - MAX_NAMES} more"


def ranked_models(results: Results) -> list[tuple[str, Evaluation, Estimate | None]]:
    """Return each model's name and scores, and the classifier's lead over it in macro AUROC.

    The classifier comes first, without a lead, and then the baselines, the hardest to beat first.
    """
    found: list[tuple[str, Evaluation, Estimate | None]] = []
    for key, name in MODELS.items():
        if key == "classifier":
            found.append((name, results.classifier, None))
        elif key in results.baselines:  # else there was nothing to fit it on
            known = _join(list(results.known_of_people)).capitalize()
            lead = results.differences[key]["auroc"]
            found.append((name.format(known=known), results.baselines[key], lead))
    return found


def probed(results: Results) -> str:
    """Say what a linear model of the latents tells of people, of what is known of them."""
    found = results.audit.probes
    names = {"view": ("the view", "AUROC"), "sex": ("the sex", "AUROC"), "age": ("the age", "R²")}
    told = [
        f"{called} ({score} {number(found[kind].value)}"
        f"{', ' + interval(found[kind].interval) if found[kind].interval else ''})"
        for kind, (called, score) in names.items()
        if found[kind].value is not None
    ]
    untold: dict[str, list[str]] = {}
    for kind, (called, _) in names.items():
        if found[kind].value is None:
            untold.setdefault(found[kind].reason or "", []).append(called)
    sentences = []
    if told:
        sentences.append(f"A linear model of the latents predicts {_join(told)} of test images.")
    for reason, those in untold.items():
        sentences.append(f"Whether the latents tell {_join(those)} cannot be said: {reason}.")
    return " ".join(sentences)


def nothing_classified(run: Run) -> str:
    """Say why there is no classifier; empty where there is one."""
    if run.predictions["test"].pathologies:
        return ""
    if not run.labels:
        return (
            "There was nothing to classify: the data set has no labels. What follows is about the "
            "autoencoder and its latents."
        )
    return (
        f"There was nothing to classify: no label can be learned from the train images "
        f"({reasons_of(run.left_out)}). What follows is about the autoencoder and its latents."
    )


def reasons_of(left_out: dict[str, str]) -> str:
    """List labels with the reasons why they are left out, those of one reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{names_of(those)}: {reason}" for reason, those in names.items())


def verdict(results: Results) -> str:
    """Say in one sentence which baselines the classifier beats, each with its interval."""
    ours = results.classifier.macro["auroc"].value
    if ours is None:
        return (
            "The test images cannot tell whether the classifier beats anything: no pathology has "
            "both positive and negative test images."
        )
    groups: dict[str, list[str]] = {claim: [] for claim in CLAIMS}
    for name, called in RIVALS.items():
        if name == "patient_memory" and not results.leaking_test_fraction:
            continue  # it is chance where patients are apart
        if name == "metadata" and not _knows_metadata(results):
            continue  # it is chance where nothing is known of the test images
        difference = results.differences.get(name, {}).get("auroc")
        if difference is not None and difference.value is not None:
            rival = called.format(known=_join(list(results.known_of_people)))
            groups[difference.verdict].append(f"{rival} ({_difference(difference)})")
    claims = [f"{CLAIMS[kind]} {_join(rivals)}" for kind, rivals in groups.items() if rivals]
    return (
        f"The classifier on the latents (macro AUROC {number(ours)}) {'; it '.join(claims)}. "
        "In brackets: differences in macro AUROC with 95 % intervals."
    )


def _knows_metadata(results: Results) -> bool:
    """Tell whether age, sex or view of any test image is known."""
    found = results.audit.shortcuts
    return any(found[kind].pooled.value is not None for kind in ("age", "sex", "view"))


def _difference(difference: Estimate) -> str:
    if difference.interval is None:
        shown = number(difference.value, sign="+")
        return f"{shown}, without an interval: the test images are of one patient"
    return f"{number(difference.value, sign='+')}, {interval(difference.interval, sign='+')}"


def _join(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def further_verdicts(results: Results, run: Run) -> list[str]:
    """Say what F1 and the reconstructions are worth beside what costs nothing."""
    return [*_f1_verdict(results), *_reconstruction_verdict(results, run)]


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
        f"Its macro F1 of {number(ours)} {claim} the {number(theirs)} of calling every image "
        "positive for everything."
    ]


def _reconstruction_verdict(results: Results, run: Run) -> list[str]:
    ours = results.autoencoder.metrics["test_l1"].value
    names = {
        "pca_l1": f"{run.compression['num_components']} principal components",
        "thumbnail_16_l1": "a thumbnail of 16 pixels a side",
        "thumbnail_32_l1": "one of 32 pixels",
    }
    found = {name: run.compression[name] for name in names}
    others = {name: float(value) for name, value in found.items() if value is not None}
    if ours is None or len(others) < len(names):
        return []
    parts = [
        f"{'lower' if ours < value else 'higher'} than that of {names[name]} ({number(value, 4)})"
        for name, value in others.items()
    ]
    return [
        f"The reconstruction error of {number(ours, 4)} is {parts[0]}, {parts[1]} and {parts[2]}."
    ]


def label_limits(dataset: str) -> str:
    """Say what the labels of a data set, or of several as of `BETWEEN`, are worth."""
    sets = [about(name) for name in dict.fromkeys(dataset.split(BETWEEN))]
    mined = [each.title for each in sets if each.mined]
    of_which = f" of {_join(mined)}" if len(sets) > 1 else ""
    origin = (
        f"Labels{of_which} were mined from radiology reports by text and are noisy."
        if mined
        else "Labels are as the data set gives them: how reliable they are is not known here."
    )
    return (
        f"{origin} An image without a label has no listed finding, which does not mean that the "
        "chest is healthy."
    )


def worries(results: Results, run: Run) -> list[str]:
    """Name what makes the numbers say less than they seem to, the gravest first."""
    return [
        *_synthetic(run.record),
        *_leak(results, run.record),
        *_duplicates(results),
        *_too_good(results, run.record),
        *_shortcuts(results),
        *_left_out(run),
        *_unknown(results.classifier, run),
        *_undefined(results.classifier),
        *_few_positives(results.classifier),
        *_miscalibration(results),
        *_worse_off(results),
        *_latents(results),
        *run.notes,
        *losses(run.excluded, len(run.images)),
    ]


def _synthetic(record: RunRecord) -> list[str]:
    if not record.is_synthetic:
        return []
    return [
        "The images are synthetic: no number here says anything about real chest X-rays. "
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
        "The classifier can recognise the patient instead of the pathology, and every score on "
        "test is too high."
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
        "The probabilities are miscalibrated: scaling that is fitted on validation improves them "
        f"on test, with a calibration error of {number(after)} instead of {number(before)}."
    ]


def _worse_off(results: Results) -> list[str]:
    groups = worse_off(results.audit.subgroups)
    if not groups:
        return []
    return [f"Any listed finding is detected less well in some groups: {'; '.join(groups)}."]


def _too_good(results: Results, record: RunRecord) -> list[str]:
    if record.dataset != NIH.name or record.is_synthetic:  # other labels are easier or harder
        return []
    auroc, f1 = (results.classifier.macro[name].value or 0 for name in ("auroc", "f1"))
    found = []
    if auroc > PLAUSIBLE_AUROC:
        found.append(
            f"Macro AUROC {number(auroc)} is above what networks on the pixels are published to "
            f"reach on this data set, about {PLAUSIBLE_AUROC}: look for a leak before believing it."
        )
    if f1 > PLAUSIBLE_F1:
        found.append(
            f"Macro F1 {number(f1)} is above what networks on the pixels are published to reach "
            f"on this data set, about {PLAUSIBLE_F1}: look for a leak, or for test images with "
            "more findings than the rest, which raises F1."
        )
    return found


def _left_out(run: Run) -> list[str]:
    if not run.left_out or nothing_classified(run):
        return []
    return [
        f"{plural(len(run.left_out), 'label')} of the data set cannot be learned and "
        f"{'is' if len(run.left_out) == 1 else 'are'} left out of the classifier and of every "
        f"mean ({reasons_of(run.left_out)})."
    ]


def _unknown(classifier: Evaluation, run: Run) -> list[str]:
    total = run.predictions["test"].num_images
    some = [name for name, entry in classifier.per_class.items() if entry.num_labelled < total]
    if not some:
        return []
    return [
        f"{names_of(some)}: not known for every test image. Scores, thresholds and training rest "
        "on the images that are labelled, which need not be like the others."
    ]


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
        f"Some scores are undefined: {listed}. Macro AUROC is a mean over {counts['auroc']} of the "
        f"{total} pathologies, macro F1 over {counts['f1']}."
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
        f"For {plural(len(few), 'pathology', 'pathologies')}, fewer than {FEW_PATIENTS} test "
        f"patients have a positive image: {names_of(few)}. Their scores are as much chance as "
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


def training_speed(images_per_s: float | None, loader_wait: float | None) -> str:
    """Say how fast the autoencoder trained; empty where it is not known."""
    if images_per_s is None:
        return ""
    return (
        f"The autoencoder trained on {number(images_per_s, 1)} images per second and spent "
        f"{percent(loader_wait)} of its time waiting for them (medians over epochs)."
    )
