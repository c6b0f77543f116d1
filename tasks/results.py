"""The results of a run in Prefect's UI: headline, tables and small pictures."""

from __future__ import annotations

import base64
import io
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
from PIL import Image
from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.exceptions import PrefectException

from cxrmodel.data.ledger import Reason, count_reasons
from cxrmodel.storage.layout import EXCLUDED_FILE, FIGURES_FOLDER, METRICS_FILE, REPORT_FILE
from cxrmodel.storage.store import Artifact, Store
from tasks.engine.stage import TRANSIENT

logger = logging.getLogger(__name__)

PREVIEW_PX = 640  # pictures are sent within the text
PREVIEW_QUALITY = 70
LEDGER_EXAMPLES = 3
SHOWN_FIGURES = {
    "reconstructions": "Test images, their reconstructions, and where they differ",
    "auroc": "AUROC of each finding, with 95 % intervals",
    "latent_space": "Map of the latents by t-SNE",
    "training_curves": "Losses by epoch",
}
SHOWN_METRICS = (
    "num_positive",
    "prevalence",
    "auroc",
    "average_precision",
    "f1",
    "f1_at_0_5",
    "threshold",
)


@task(name="results", task_run_name="results", persist_result=False)
def show_results(report: Artifact, excluded: list[Artifact], store: Store) -> None:
    """Show headline metrics, per-class metrics, the ledger and the figures in the UI.

    The run is finished: a server or a store that is out of reach now costs the page, not the run.
    """
    try:
        _show(report, excluded, store)
    except (httpx.HTTPError, PrefectException, *TRANSIENT) as error:
        logger.warning(
            "The results are not all in Prefect's page: %s: %s. They are in %s",
            type(error).__name__,
            error,
            store.uri(report, REPORT_FILE),
        )


def _show(report: Artifact, excluded: list[Artifact], store: Store) -> None:
    folder = store.directory(report)
    metrics = json.loads((folder / METRICS_FILE).read_text())
    create_markdown_artifact(
        _headline(report, store.uri(report, REPORT_FILE)),
        key="headline",
        description="Headline metrics and where the report is",
    )
    create_table_artifact(
        _per_class(metrics), key="per-class", description="Test metrics of each finding"
    )
    ledgers = [pd.read_parquet(store.directory(artifact) / EXCLUDED_FILE) for artifact in excluded]
    create_table_artifact(
        ledger_table(pd.concat(ledgers)), key="ledger", description="Images left out, by reason"
    )
    for name, meaning in SHOWN_FIGURES.items():
        path = folder / FIGURES_FOLDER / f"{name}.png"
        if path.is_file():  # a run of few images has no map of its latents
            create_markdown_artifact(
                f"![{meaning}]({_preview(path)})",  # an image artifact prints its URL, 60 KB of it
                key=f"figure-{name.replace('_', '-')}",
                description=meaning,
            )


def _headline(report: Artifact, uri: str) -> str:
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in report.summary.items())
    link = f"[{uri}]({uri})" if "://" in uri else f"`{uri}`"
    return f"# Results\n\n| metric | value |\n|---|---|\n{rows}\n\nReport: {link}\n"


def _per_class(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"finding": name, **{metric: _cell(row[metric]) for metric in SHOWN_METRICS}}
        for name, row in metrics["classifier"]["per_class"].items()
    ]


def ledger_table(excluded: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row per reason, the most frequent first: what it means, how many images, examples.

    Args:
        excluded: Ledger rows with the columns image, reason and detail.
    """
    meanings = {str(reason): reason.meaning for reason in Reason}
    images = excluded.groupby("reason")["image"]
    rows = [
        {
            "reason": reason,
            "meaning": meanings[reason],
            "images": count,
            "examples": ", ".join(images.get_group(reason).head(LEDGER_EXAMPLES)),
        }
        for reason, count in count_reasons(excluded).items()
    ]
    return rows or [{"reason": "none", "meaning": "No image is left out.", "images": 0}]


def _preview(figure: Path) -> str:
    with Image.open(figure) as image:
        small = image.convert("RGB")
    small.thumbnail((PREVIEW_PX, PREVIEW_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cell(value: Any) -> Any:
    if value is None:
        return "undefined"
    return round(value, 4) if isinstance(value, float) else value
