"""What the numbers of a run say, in a few sentences."""

from __future__ import annotations

from cxrmodel.evaluation.evaluate import Difference
from cxrmodel.report.inputs import RunTables
from cxrmodel.report.results import Results
from cxrmodel.report.words import interval, number

RIVALS = {  # the baselines that the verdict names, beside chance, and what it calls them
    "all_positive": "chance",
    "metadata": "age, sex and view without a pixel",
    "patient_memory": "a memory of the patient's other labels",
    "pca_logistic": "principal components with logistic regressions",
    "pca_network": "principal components with the same network",
}
CLAIMS = {"higher": "beats", "unclear": "cannot be told apart from", "lower": "is worse than"}


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
        difference = results.differences.get(name, {}).get("auroc")
        if difference is not None and difference.value is not None:
            groups[difference.verdict].append(f"{called} ({_difference(difference)})")
    claims = [f"{CLAIMS[kind]} {_join(rivals)}" for kind, rivals in groups.items() if rivals]
    return (
        f"The classifier on the latents, of macro AUROC {number(ours)}, {'; it '.join(claims)}. "
        "In brackets: differences in macro AUROC with 95 % intervals."
    )


def _difference(difference: Difference) -> str:
    if difference.interval is None:
        return f"{difference.value:+.3f}, without an interval: the test images are of one patient"
    return f"{difference.value:+.3f}, {interval(difference.interval, sign='+')}"


def _join(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def further_verdicts(results: Results, tables: RunTables) -> list[str]:
    """Say what F1 and the reconstructions are worth beside what costs nothing."""
    return [
        *_f1_verdict(results),
        *_reconstruction_verdict(results, tables),
    ]


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
