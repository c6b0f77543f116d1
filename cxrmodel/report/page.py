"""report.html, one file that asks for nothing from the network, and the two cards beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cxrmodel.config import ReportConfig
from cxrmodel.data.datasets.registry import about
from cxrmodel.data.ledger import Reason, count_reasons
from cxrmodel.evaluation.audit.localisation import NUM_TILES
from cxrmodel.evaluation.calibration import MAX_BINS
from cxrmodel.evaluation.metrics import HEADLINE_METRICS, METRICS
from cxrmodel.evaluation.patient_bootstrap import NUM_RESAMPLES
from cxrmodel.report import prose
from cxrmodel.report.figures.gallery import PageFigure
from cxrmodel.report.measure import Results
from cxrmodel.report.run import LEDGERS, Run
from cxrmodel.report.viewer import Strips
from cxrmodel.storage.layout import DATASHEET_FILE, MODEL_CARD_FILE

NUM_EXAMPLES = 3
ACRONYMS = {"auroc", "f1", "l1", "psnr", "kl"}  # in names of metrics and settings
CARDS = {MODEL_CARD_FILE: "model_card.md.j2", DATASHEET_FILE: "datasheet.md.j2"}
PARTS = {"train": "Train", "val": "Validation", "test": "Test"}


def render_page(
    config: ReportConfig, run: Run, results: Results, figures: list[PageFigure], strips: Strips
) -> str:
    """Return the page.

    Args:
        config: What was shown.
        run: What was read.
        results: The numbers.
        figures: Shown in their sections.
        strips: Images for the viewer; where there are none, the page says so.
    """
    template = make_environment(escape=True).get_template("report.html.j2")
    return template.render(
        **_shared(run, results),
        report_config=config,
        further_verdicts=prose.further_verdicts(results, run),
        probed=prose.probed(results),
        anomalies=prose.ANOMALIES,
        compressions=_compressions(run, results),
        further_metrics={n: t for n, t in METRICS.items() if n not in HEADLINE_METRICS},
        num_resamples=NUM_RESAMPLES,
        max_bins=MAX_BINS,
        num_tiles=NUM_TILES,
        figures=figures,
        strips=strips,
    )


def render_cards(run: Run, results: Results) -> dict[str, str]:
    """Return `MODEL_CARD.md` and `DATASHEET.md`."""
    shared = _shared(run, results)
    environment = make_environment(escape=False)
    return {
        card: environment.get_template(template).render(shared) for card, template in CARDS.items()
    }


def make_environment(*, escape: bool) -> Environment:
    """Return where templates are found, with the filters that write numbers.

    Args:
        escape: What enters is escaped for HTML.
    """
    environment = Environment(
        loader=PackageLoader("cxrmodel.report", "templates"),
        autoescape=escape,  # noqa: S701 - Markdown is escaped by nothing that HTML is
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not escape,
    )
    environment.filters.update(
        number=prose.number,
        interval=prose.interval,
        percent=prose.percent,
        duration=prose.duration,
        plural=prose.plural,
        title=title_of,
        emphasize=_emphasize,
        marked=_marked,
    )
    environment.tests["nested"] = lambda value: isinstance(value, Mapping)
    environment.tests["listed"] = lambda value: isinstance(value, (list, tuple))
    return environment


def _shared(run: Run, results: Results) -> dict[str, Any]:
    """Return what page and cards have in common."""
    record = run.record
    met = set(run.excluded["reason"])
    return {
        "run": run,
        "record": record,
        "results": results,
        "about": about(record.dataset),
        "label_limits": prose.label_limits(record.dataset),
        "settings": {"size": "?", "fit": "?"} | record.config.get("images", {}),
        "loss": record.config.get("classifier", {}).get("loss", "bce"),
        "verdict": prose.nothing_classified(run) or prose.verdict(results),
        "worries": prose.worries(results, run),
        "left_out": prose.reasons_of(run.left_out),
        "ledger": _ledger(run),
        "unmet": [reason.value for reason in Reason if reason not in met],
        "flow": _flow(run),
        "part_names": PARTS,
        "models": prose.ranked_models(results),
        "headline_metrics": {name: METRICS[name] for name in HEADLINE_METRICS},
        "timings": list(record.timings_s.items()),  # in the order of the stages
        "training_speed": prose.training_speed(**record.training_speed)
        if record.training_speed
        else "",
    }


def title_of(name: str) -> str:
    """Return the words of a metric's or a setting's name."""
    words = name.replace("0_5", "0.5").split("_")
    return " ".join(word.upper() if word in ACRONYMS else word for word in words)


def _emphasize(sentence: str) -> Markup:
    """Set off what a verdict claims."""
    text = str(escape(sentence))
    for claim in prose.CLAIMS.values():
        text = text.replace(claim, f"<strong>{claim}</strong>")
    return Markup(text)  # noqa: S704 - escaped above


def _marked(text: str) -> Markup:
    """Turn the code and the titles of a Markdown sentence into HTML."""
    code = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*([^*]+)\*", r"<cite>\1</cite>", code))  # noqa: S704 - escaped above


def _ledger(run: Run) -> list[dict[str, Any]]:
    """Return a row per stage and reason, the most frequent first, with a few examples."""
    meanings = {reason.value: reason.meaning for reason in Reason}
    rows = []
    for (stage, reason), entries in run.excluded.groupby(["stage", "reason"], sort=True):
        examples = entries.head(NUM_EXAMPLES)[["image", "detail"]].to_dict("records")
        row = {"stage": stage, "reason": reason, "meaning": meanings.get(str(reason), "")}
        rows.append({**row, "count": len(entries), "examples": examples})
    return sorted(rows, key=lambda row: -int(row["count"]))


def _flow(run: Run) -> list[dict[str, Any]]:
    """Return a row per stage that excluded something: what came in, and what went out and why."""
    left, rows = len(run.images) + len(run.excluded), []
    for stage in LEDGERS:
        reasons = count_reasons(run.excluded[run.excluded["stage"] == stage])
        if reasons:
            out = sum(reasons.values())
            rows.append({"stage": stage, "entered": left, "excluded": out, "reasons": reasons})
            left -= out
    return rows


def _compressions(run: Run, results: Results) -> list[dict[str, Any]]:
    """Return a row per way to compress an image: numbers kept and error, the autoencoder first."""
    own, others = results.autoencoder.metrics, run.compression
    names = {
        "pca": ("Principal components", others["num_components"]),
        "thumbnail_16": ("Thumbnail, 16 pixels a side", 16**2),
        "thumbnail_32": ("Thumbnail, 32 pixels a side", 32**2),
    }
    rows = [("Autoencoder", run.latent_dim, own["test_l1"].value, own["test_ssim"].value)]
    rows += [
        (*about, others[f"{key}_l1"], others.get(f"{key}_ssim")) for key, about in names.items()
    ]
    return [dict(zip(("name", "numbers", "l1", "ssim"), row, strict=True)) for row in rows]
