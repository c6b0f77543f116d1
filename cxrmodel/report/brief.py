"""A finished run in brief, for a page that shows only Markdown and tables."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cxrmodel.data.ledger import Reason, count_reasons
from cxrmodel.storage.layout import EXCLUDED_FILE

FIGURE_PX = 640  # figures are sent within the text
JPEG_QUALITY = 70
LEDGER_EXAMPLES = 3
SHOWN_FIGURES = {
    "reconstructions": "Test images, their reconstructions, and where they differ",
    "auroc": "AUROC per finding, with 95 % intervals",
    "latent_space": "Map of the latents by t-SNE",
    "training_curves": "Losses per epoch",
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


def headline_text(summary: Mapping[str, Any], report: str, bundle: str) -> str:
    """Return headline metrics and the places of report and bundle, as Markdown."""
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in summary.items())
    table = f"| metric | value |\n|---|---|\n{rows}"
    places = f"Report: {_place(report)}\n\nBundle, to use the model: {_place(bundle)}"
    return f"# Results\n\n{table}\n\n{places}\n"


def _place(uri: str) -> str:
    return f"[{uri}]({uri})" if "://" in uri else f"`{uri}`"


def finding_rows(report: Path) -> list[dict[str, Any]]:
    """Return a row per finding with its test metrics.

    Args:
        report: Folder of the report.
    """
    metrics = json.loads((report / "metrics.json").read_text())
    rows = [
        {"finding": name, **{metric: _cell(row[metric]) for metric in SHOWN_METRICS}}
        for name, row in metrics["classifier"]["per_class"].items()
    ]
    return rows or [{"finding": "none: there was nothing to classify"}]


def ledger_rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return a row per reason, the most frequent first: what it means, how many images, examples.

    Args:
        folders: Of the stages that leave images out.
    """
    excluded = pd.concat([pd.read_parquet(folder / EXCLUDED_FILE) for folder in folders])
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


def figure_texts(report: Path) -> dict[str, tuple[str, str]]:
    """Return Markdown that holds the figure itself, and its meaning, by the name of the figure.

    Args:
        report: Folder of the report; a run of few images has no map of its latents.
    """
    paths = {name: report / "figures" / f"{name}.png" for name in SHOWN_FIGURES}
    return {
        name: (f"![{SHOWN_FIGURES[name]}]({_small_jpeg(path)})", SHOWN_FIGURES[name])
        for name, path in paths.items()
        if path.is_file()
    }


def _small_jpeg(figure: Path) -> str:
    with Image.open(figure) as image:
        small = image.convert("RGB")
    small.thumbnail((FIGURE_PX, FIGURE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cell(value: Any) -> Any:
    if value is None:
        return "undefined"
    return round(value, 4) if isinstance(value, float) else value
