"""report.html, one file that asks for nothing from the network, and the two cards beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cxrmodel.config import ReportConfig
from cxrmodel.data.ledger import Reason, count_reasons
from cxrmodel.evaluation.metrics import HEADLINE_METRICS, METRICS
from cxrmodel.report import prose
from cxrmodel.report.figures.gallery import PageFigure
from cxrmodel.report.measure import Results
from cxrmodel.report.run import LEDGERS, RunRecord, RunTables
from cxrmodel.report.viewer import Strips

NUM_EXAMPLES = 3
ACRONYMS = {"auroc", "f1", "l1", "psnr", "kl"}  # as keys of metrics.json
CARDS = {"MODEL_CARD.md": "model_card.md.j2", "DATASHEET.md": "datasheet.md.j2"}
PARTS = {"train": "Train", "val": "Validation", "test": "Test"}
STAGE_ORDER = ("index", "images", "split", "vae", "latents", "classifier", "baselines", "report")


def render_page(
    config: ReportConfig,
    tables: RunTables,
    results: Results,
    document: dict[str, Any],
    record: RunRecord,
    figures: list[PageFigure],
    strips: Strips,
) -> str:
    """Return the page.

    Args:
        config: What was shown.
        tables: The stages' files.
        results: The numbers with their intervals.
        document: Content of metrics.json.
        record: What is known of the run.
        figures: Shown in their sections.
        strips: Images for the viewer; where there are none, the page says so.
    """
    return (
        make_environment(escape=True)
        .get_template("report.html.j2")
        .render(
            **_said(tables, results, document, record),
            report_config=config,
            further_verdicts=prose.further_verdicts(results, tables),
            anomalies=prose.ANOMALIES,
            compressions=_compressions(document),
            figures=figures,
            strips=strips,
        )
    )


def render_cards(
    tables: RunTables, results: Results, document: dict[str, Any], record: RunRecord
) -> dict[str, str]:
    """Return `MODEL_CARD.md` and `DATASHEET.md`, for a run as for the page."""
    said = _said(tables, results, document, record)
    images = record.config.get("images", {})
    said |= {"size": images.get("size", "?"), "fit": images.get("fit", "?")}
    environment = make_environment(escape=False)
    return {
        card: environment.get_template(template).render(said) for card, template in CARDS.items()
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
        title=_title,
        emphasize=_emphasize,
        marked=_marked,
    )
    environment.tests["nested"] = lambda value: isinstance(value, Mapping)
    return environment


def _said(
    tables: RunTables, results: Results, document: dict[str, Any], record: RunRecord
) -> dict[str, Any]:
    """Return what page and cards have in common."""
    met = set(tables.excluded["reason"])
    return {
        "m": document,
        "headline_metrics": {name: METRICS[name] for name in HEADLINE_METRICS},
        "further_metrics": {n: t for n, t in METRICS.items() if n not in HEADLINE_METRICS},
        "record": record,
        "verdict": prose.verdict(results),
        "worries": prose.worries(results, tables, record),
        "ledger": _ledger(tables),
        "unmet": [reason.value for reason in Reason if reason not in met],
        "flow": _flow(tables),
        "parts": _parts(tables),
        "models": _models(document),
        "timings": _timings(record.timings_s),
        "training_speed": _training_speed(**document["training_speed"]),
    }


def _title(name: str) -> str:
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


def _ledger(tables: RunTables) -> list[dict[str, Any]]:
    """Return a row per stage and reason, the most frequent first, with a few examples."""
    meanings = {reason.value: reason.meaning for reason in Reason}
    rows = []
    for (stage, reason), entries in tables.excluded.groupby(["stage", "reason"], sort=True):
        examples = entries.head(NUM_EXAMPLES)[["image", "detail"]].to_dict("records")
        row = {"stage": stage, "reason": reason, "meaning": meanings.get(str(reason), "")}
        rows.append({**row, "count": len(entries), "examples": examples})
    return sorted(rows, key=lambda row: -int(row["count"]))


def _flow(tables: RunTables) -> list[dict[str, Any]]:
    """Return a row per stage that excluded something: what came in, and what went out and why."""
    left, rows = len(tables.images) + len(tables.excluded), []
    for stage in LEDGERS:
        reasons = count_reasons(tables.excluded[tables.excluded["stage"] == stage])
        if reasons:
            out = sum(reasons.values())
            rows.append({"stage": stage, "entered": left, "excluded": out, "reasons": reasons})
            left -= out
    return rows


def _parts(tables: RunTables) -> list[dict[str, Any]]:
    """Return a row per part of the split: images, patients, and how many have a listed finding."""
    rows = []
    for part, name in PARTS.items():
        images = tables.images[tables.images["split"] == part]
        share = float(images["any_abnormal"].mean()) if len(images) else None
        patients = int(images["patient_id"].nunique())
        rows.append({"name": name, "images": len(images), "patients": patients, "share": share})
    return rows


def _models(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per model: its means with intervals, and the classifier's lead over it."""
    metrics = [f"macro_{metric}" for metric in HEADLINE_METRICS]
    rows = []
    for key, name in prose.MODELS.items():
        if key != "classifier" and key not in document["baselines"]:
            continue  # nothing to fit it on
        source = document["classifier"] if key == "classifier" else document["baselines"][key]
        rows.append(
            {
                "name": name,
                "values": [(source[metric], source["intervals"].get(metric)) for metric in metrics],
                "lead": document["comparisons"].get(key, {}).get("macro_auroc"),
            }
        )
    return rows


def _compressions(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per way to compress an image: numbers kept and error, the autoencoder first."""
    errors, vae = document["baselines"]["reconstruction"], document["vae"]
    names = {
        "pca": ("Principal components", errors["num_components"]),
        "thumbnail_16": ("Thumbnail, 16 pixels a side", 16**2),
        "thumbnail_32": ("Thumbnail, 32 pixels a side", 32**2),
    }
    own = ("Autoencoder", vae["latent_dim"], vae["test_l1"], vae["test_ssim"])
    rows = [own] + [
        (*said, errors[f"{key}_l1"], errors.get(f"{key}_ssim")) for key, said in names.items()
    ]
    return [dict(zip(("name", "numbers", "l1", "ssim"), row, strict=True)) for row in rows]


def _timings(timings_s: dict[str, float]) -> list[tuple[str, float]]:
    known = [stage for stage in STAGE_ORDER if stage in timings_s]
    return [(name, timings_s[name]) for name in [*known, *sorted(set(timings_s) - set(known))]]


def _training_speed(images_per_s: float | None, loader_wait: float | None) -> str:
    if images_per_s is None:
        return ""
    return (
        f"The autoencoder trained on {prose.number(images_per_s, 1)} images per second and spent "
        f"{prose.percent(loader_wait)} of its time waiting for them: medians over epochs."
    )
