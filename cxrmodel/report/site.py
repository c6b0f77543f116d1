"""A model at another site: the page, the figures and `metrics.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cxrmodel.data.ledger import count_reasons, losses
from cxrmodel.evaluation.audit.subgroups import EVERYONE, worse_off
from cxrmodel.evaluation.calibration import MAX_BINS
from cxrmodel.evaluation.metrics import METRICS
from cxrmodel.evaluation.patient_bootstrap import (
    FEW_PATIENTS,
    LEVEL,
    MIN_PATIENTS,
    NUM_RESAMPLES,
    Estimate,
)
from cxrmodel.evaluation.sites import COMPARED, OVERLAPS, PlaceScores, SiteFindings
from cxrmodel.report.figures.gallery import Gallery, PageFigure
from cxrmodel.report.figures.panels import draw_reliability
from cxrmodel.report.figures.scores import draw_auroc, draw_subgroups
from cxrmodel.report.metrics_json import plain
from cxrmodel.report.page import make_environment
from cxrmodel.report.prose import (
    interval,
    names_of,
    number,
    percent,
    plural,
    reasons_of,
)
from cxrmodel.storage.layout import FIGURES_FOLDER, METRICS_FILE, PREDICTIONS_FILE, REPORT_FILE

FORMAT, FORMAT_VERSION = "cxrmodel-evaluation", 1
SITE_AND_HOME = ("at the site", "at home, test images")
ALL_IMAGES = "all images"
NUM_EXAMPLES = 3
SHOWN_SETTINGS = ("recalibrate", "allow_overlap", "leave_out_overlap", "seed")
GAINS = {"f1": "Macro F1", "brier": "Macro Brier score", "ece": "Macro calibration error (ECE)"}
DIRECTIONS = {
    "higher": "higher than at home",
    "lower": "lower than at home",
    "unclear": "not to be told apart from that at home",
}


def write_site_report(
    found: SiteFindings, table: pd.DataFrame, directory: Path, *, packages: Mapping[str, str]
) -> dict[str, str]:
    """Write page, figures, `metrics.json` and `predictions.parquet`, the same each time.

    Args:
        found: What the model's figures are.
        table: A row per image of the site.
        directory: Where to write.
        packages: Versions of what the figures depend on.

    Returns:
        The headline figures in words, by name.
    """
    gallery = Gallery(directory / FIGURES_FOLDER)
    _draw(found, gallery)
    (directory / REPORT_FILE).write_text(_page(found, gallery.figures), encoding="utf-8")
    table.to_parquet(directory / PREDICTIONS_FILE, index=False, compression="zstd")
    text = json.dumps(build_document(found, packages), indent=1, allow_nan=False)
    (directory / METRICS_FILE).write_text(f"{text}\n", encoding="utf-8")
    return headline(found)


def headline(found: SiteFindings) -> dict[str, str]:
    """Return the few figures that stand for a site, in words."""
    site = found.comparison.site
    about = f"{plural(site.num_images, 'image')} of {plural(site.num_patients, 'patient')}"
    return {
        "judged by": f"{about}, {plural(len(site.per_class), 'label')}",
        **{
            title: _beside(found, name)
            for name, title in (
                ("auroc", "macro AUROC"),
                ("f1", "macro F1"),
                ("brier", "macro Brier"),
                ("excess", "over-prediction"),
            )
        },
    }


def _beside(found: SiteFindings, name: str) -> str:
    compared = found.comparison
    text = number(compared.site.macro[name].value)
    if compared.home is None:
        return text
    change = compared.macro[name]
    bounds = f" ({interval(change.interval, sign='+')})" if change.interval else ""
    shown = number(change.value, sign="+")
    return f"{text}, at home {number(compared.home.macro[name].value)}, change {shown}{bounds}"


def build_document(found: SiteFindings, packages: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of metrics.json; what the images cannot tell is null, with its reason."""
    compared = found.comparison
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **found.origin,
        "packages": dict(packages),
        "labels": list(compared.site.per_class),
        "labels_left_out": found.left_out,
        "site": _place(compared.site),
        "home": None if compared.home is None else _place(compared.home),
        "difference": {"macro": plain(compared.macro), "per_class": plain(compared.per_class)},
        "bootstrap": {"unit": "patient", "num_resamples": NUM_RESAMPLES, "level": LEVEL},
        "num_shared_patients": compared.num_shared_patients,
        "num_home_images": found.num_home_images,
        "overlap": {
            "found": found.overlaps,
            "judged": found.judged_overlaps,
            "num_left_out": found.num_left_out,
        },
        "gate_would_refuse": found.refusals,
        "excluded_by_reason": count_reasons(found.excluded),
        "recalibration": plain(found.gain),
        "notes": found.notes,
    }


def _place(scores: PlaceScores) -> dict[str, Any]:
    per_class = {}
    for label, entry in scores.evaluation.per_class.items():
        calibration = scores.calibration.per_class[label]
        per_class[label] = {
            **plain(scores.per_class[label]),
            "threshold": entry.metrics["threshold"].value,
            "prevalence": entry.metrics["prevalence"].value,
            "num_labelled": entry.num_labelled,
            "num_positive": entry.num_positive,
            "num_positive_patients": entry.num_positive_patients,
            "warning": entry.warning,
            "ece_before": plain(calibration.metrics["ece_before"]),
            "ece_after": plain(calibration.metrics["ece_after"]),
            "reliability_before": plain(calibration.before),
            "reliability_after": plain(calibration.after),
        }
    return {
        "num_images": scores.num_images,
        "num_patients": scores.num_patients,
        "view": scores.view,
        "macro": plain(scores.macro) | {"ece": plain(_errors(scores))},
        "per_class": per_class,
        "any_finding_threshold": scores.any_finding_threshold.value,
        "subgroups": plain(scores.subgroups),
        "worse_off": worse_off(scores.subgroups),
        "shortcuts": {
            name: plain(shortcut) | {"is_notable": shortcut.is_notable}
            for name, shortcut in scores.shortcuts.items()
        },
    }


def _errors(scores: PlaceScores) -> dict[str, Estimate]:
    return {when: scores.calibration.macro[f"ece_{when}"] for when in ("before", "after")}


def _draw(found: SiteFindings, gallery: Gallery) -> None:
    site, home = found.comparison.site, found.comparison.home
    if home is not None:
        gallery.add(
            "auroc",
            partial(
                draw_auroc, site.evaluation, home.evaluation, names=SITE_AND_HOME,
                where="at both places",
            ),
            section="scores",
            alt="AUROC of each label with 95 % intervals, at the site and at home; the table below "
            "has the numbers.",
            caption=f"AUROC by label. *: fewer than {FEW_PATIENTS} patients of the site have a "
            "positive image, so the interval is itself uncertain.",
        )  # fmt: skip
    gallery.add(
        "reliability",
        partial(draw_reliability, site.calibration),
        section="calibration",
        alt="Reliability of each label's probabilities at the site, before and after the scaling "
        "from home; the table below has the numbers.",
        caption="Share of positive images of the site over the mean probability of a bin; on the "
        "dashed line they agree. The scaling is that from home. The axes end where the values do.",
    )
    if site.subgroups:
        gallery.add(
            "subgroups",
            partial(draw_subgroups, site.subgroups, everyone=ALL_IMAGES),
            section="subgroups",
            alt=f"AUROC, false-positive and false-negative rate of {len(site.subgroups)} groups of "
            "the site's images with 95 % intervals; the table below has the numbers.",
            caption="Dots with 95 % intervals; dashed: all images. In brackets: the number of "
            "images.",
        )


def _page(found: SiteFindings, figures: list[PageFigure]) -> str:
    compared = found.comparison
    groups = list(compared.site.subgroups)
    if compared.home is not None:
        groups += [name for name in compared.home.subgroups if name not in groups]
    template = make_environment(escape=True).get_template("site.html.j2")
    return template.render(
        found=found,
        compared=compared,
        site=compared.site,
        home=compared.home,
        verdict=verdict(found),
        probabilities=_probabilities(found),
        worries=_worries(found),
        compared_metrics=COMPARED,
        shown_metrics={name: METRICS[name] for name in ("auroc", "average_precision")},
        called_metrics={name: METRICS[name] for name in ("sensitivity", "specificity")},
        excess_metrics={name: COMPARED[name] for name in ("excess", "excess_after")},
        without_threshold=_without_threshold(compared.site),
        groups=groups,
        names={EVERYONE: ALL_IMAGES},
        gains=GAINS,
        ledger=_ledger(found.excluded),
        left_out=reasons_of(found.left_out),
        overlap_meanings=OVERLAPS,
        num_resamples=NUM_RESAMPLES,
        max_bins=MAX_BINS,
        settings={name: found.origin["settings"][name] for name in SHOWN_SETTINGS},
        figures=figures,
    )


def _without_threshold(site: PlaceScores) -> str:
    classes = site.evaluation.per_class.items()
    return names_of([name for name, entry in classes if entry.metrics["threshold"].value is None])


def _ledger(excluded: pd.DataFrame) -> list[dict[str, Any]]:
    rows = [
        {
            "reason": reason,
            "count": len(entries),
            "examples": entries.head(NUM_EXAMPLES)[["image", "detail"]].to_dict("records"),
        }
        for reason, entries in excluded.groupby("reason", sort=True)
    ]
    return sorted(rows, key=lambda row: -int(row["count"]))


def verdict(found: SiteFindings) -> str:
    """Say in a sentence what becomes of the AUROC."""
    compared = found.comparison
    ours = compared.site.macro["auroc"]
    text = f"Macro AUROC at the site is {_with_interval(ours)}"
    if compared.home is None:
        return f"{text}; what it is at home is not known."
    change = compared.macro["auroc"]
    theirs = number(compared.home.macro["auroc"].value)
    if change.interval is None:
        return f"{text}, and {theirs} at home; there are too few patients for an interval."
    return (
        f"{text}, {DIRECTIONS[change.verdict]} ({theirs}): a change of "
        f"{number(change.value, sign='+')}, 95 % interval {interval(change.interval, sign='+')}."
    )


def _probabilities(found: SiteFindings) -> str:
    excess, scaled = (found.comparison.site.macro[name] for name in ("excess", "excess_after"))
    if excess.value is None:
        return ""
    kind = {"higher": "are too high", "lower": "are too low", "unclear": "are not clearly off"}
    return (
        f"On average over labels the probabilities at the site {kind[excess.verdict]}: the mean "
        f"probability less the share of positives is {_with_interval(excess, '+')}, and after the "
        f"scaling from home {_with_interval(scaled, '+')}."
    )


def _with_interval(estimate: Estimate, sign: str = "") -> str:
    if estimate.value is None:
        return "undefined"
    bounds = f" ({interval(estimate.interval, sign=sign)})" if estimate.interval else ""
    return f"{number(estimate.value, sign=sign)}{bounds}"


def _worries(found: SiteFindings) -> list[str]:
    """Name what makes the figures say less than they seem to, the gravest first."""
    site, home = found.comparison.site, found.comparison.home
    return [
        *_allowed_overlap(found),
        *found.notes,
        *_few_patients(site),
        *_left_out(found),
        *_shortcuts(site),
        *_worse_off(site),
        *_few_positives(site, "patients of the site"),
        *([] if home is None else _few_positives(home, "test patients at home")),
        *_refusals(found),
        *losses(found.excluded, site.num_images + found.num_left_out),
    ]


def _allowed_overlap(found: SiteFindings) -> list[str]:
    return [
        f"{plural(count, 'image')} of those judged {_has(count)} {OVERLAPS[kind]}, which was "
        "allowed. If that is no accident, the figures are too good."
        for kind, count in found.judged_overlaps.items()
        if count
    ]


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _few_patients(site: PlaceScores) -> list[str]:
    if site.num_patients < MIN_PATIENTS:
        return ["All images of the site are of one patient, so there is no interval."]
    if site.num_patients < FEW_PATIENTS:
        return [
            f"The site has {site.num_patients} patients: the intervals are themselves uncertain."
        ]
    return []


def _left_out(found: SiteFindings) -> list[str]:
    if not found.left_out:
        return []
    return [f"Labels that are not judged: {reasons_of(found.left_out)}."]


def _shortcuts(site: PlaceScores) -> list[str]:
    return [
        f"A shortcut: among images of the site that share the {name}, macro AUROC is "
        f"{number(shortcut.within.value)} instead of {number(shortcut.pooled.value)}."
        for name, shortcut in site.shortcuts.items()
        if shortcut.is_notable
    ]


def _worse_off(site: PlaceScores) -> list[str]:
    groups = worse_off(site.subgroups)
    if not groups:
        return []
    return [f"Any finding is detected less well in some groups of the site: {'; '.join(groups)}."]


def _few_positives(place: PlaceScores, who: str) -> list[str]:
    few = [name for name, entry in place.evaluation.per_class.items() if entry.warning is not None]
    if not few:
        return []
    return [
        f"Fewer than {FEW_PATIENTS} {who} have a positive image for {names_of(few)}: scores and "
        "intervals of these there are themselves uncertain."
    ]


def _refusals(found: SiteFindings) -> list[str]:
    count = sum(found.refusals.values())
    if not count:
        return []
    reasons = ", ".join(f"{name} {number:,}" for name, number in sorted(found.refusals.items()))
    share = percent(count / found.comparison.site.num_images)
    return [
        f"The model's input gate would refuse {plural(count, 'image')} of the site ({share}: "
        f"{reasons}). They are judged here all the same, as the test images at home are."
    ]
