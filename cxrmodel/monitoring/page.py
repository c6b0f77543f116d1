"""The page of a window: what has drifted, how far, and the images that moved it most."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from PIL import Image

from cxrmodel.inference.bundle import Bundle
from cxrmodel.inference.image_files import OK, BundlePreprocessing, read_image
from cxrmodel.monitoring.drift import EVERYTHING, MIN_PATIENTS, TOGETHER, Drift
from cxrmodel.monitoring.figures import draw_effects, draw_multiples, panels_of
from cxrmodel.monitoring.quantities import GATE_REASONS, Quantity
from cxrmodel.monitoring.window import Window
from cxrmodel.report.figures.gallery import Gallery, PageFigure, jpeg_url
from cxrmodel.report.page import make_environment
from cxrmodel.report.viewer import Strips, View, ViewerImage

MAX_OF_KIND = 4  # rows of a kind and source
PER_CENT = 100
MAX_JPEG_BYTES = 40_000


def render_drift(
    bundle: Bundle,
    reference: pd.DataFrame,
    window: Window,
    quantities: Sequence[Quantity],
    drift: Drift,
    level: float,
) -> str:
    """Return one self-contained page.

    Args:
        bundle: What scored the images.
        reference: Its reference images.
        window: The scored images.
        quantities: What was compared.
        drift: What was found.
        level: Share of windows without drift in which something may be called drift.
    """
    template = make_environment(escape=True).get_template("drift.html.j2")
    return template.render(
        bundle=bundle,
        reference=reference,
        window=window,
        drift=drift,
        level=level,
        sentence=verdict(drift, level),
        rows=[_row(row) for _, row in _strongest(drift.results).iterrows()],
        refusals=_refusals(reference, window.rows),
        figures=_figures(reference, window.rows, quantities, drift),
        strips=Strips({"moved": _images(bundle, drift.moved)}, None),
        min_patients=MIN_PATIENTS,
    )


def verdict(drift: Drift, level: float) -> str:
    """Return in a sentence whether a window has drifted, and in what."""
    if not drift.is_found:
        return (
            "No drift was found: a window in which nothing has changed shows as much in "
            f"{_percent(drift.p, 0)} of cases."
        )
    found = drift.results[drift.results["is_drift"]]
    strongest = found.iloc[0]
    where = "" if strongest["source"] == EVERYTHING else f" in {strongest['source']}"
    kinds = ", ".join(dict.fromkeys(found["kind"]))
    return (
        f"The window has drifted ({kinds}): most of all {strongest['quantity']}{where}, "
        f"{effect_text(strongest)}. A window in which nothing has changed shows as much in "
        f"{_percent(drift.p)} of cases; of such windows at most {_percent(level, 0)} are called "
        "drift."
    )


def effect_text(row: pd.Series) -> str:
    """Return the effect of one result in words."""
    effect = float(row["effect"])
    if row["quantity"] == TOGETHER.name:
        return f"{effect:.2f} standard deviations apart"
    if row["is_share"]:
        return f"{_percent(row['window'])} against {_percent(row['reference'])}"
    direction = "above" if effect > 0 else "below"
    return f"{direction} a reference image in {_percent(0.5 + abs(effect), 0)} of pairs"


def _strongest(results: pd.DataFrame) -> pd.DataFrame:
    return results.groupby(["source", "kind"], sort=False).head(MAX_OF_KIND)


def _percent(share: float, digits: int = 1) -> str:
    return f"{PER_CENT * share:.{digits}f} %"


def _row(row: pd.Series) -> dict[str, Any]:
    """Return the cells of a result."""
    means = ["reference", "window"]
    written = (
        [_percent(row[name]) for name in means]
        if row["is_share"]
        else ["" if pd.isna(row[name]) else f"{row[name]:.4g}" for name in means]
    )
    return {
        **{str(name): value for name, value in row.items()},
        "reference": written[0],
        "window": written[1],
        "effect": effect_text(row),
        "source": "" if row["source"] == EVERYTHING else row["source"],
    }


def _refusals(reference: pd.DataFrame, window: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row per reason for which images of the window have no score."""
    counts = window["status"].value_counts()
    usual = reference["status"].dropna()
    return [
        {
            "reason": str(reason),
            "count": int(count),
            "share": count / len(window),
            "usual": float((usual == reason).mean())
            if reason in GATE_REASONS and len(usual)
            else None,
        }
        for reason, count in counts.items()
        if reason != OK
    ]


def _figures(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    quantities: Sequence[Quantity],
    drift: Drift,
) -> list[PageFigure]:
    panels = panels_of(reference, window, quantities, drift)
    whole = drift.results[drift.results["source"] == EVERYTHING]
    with TemporaryDirectory() as folder:
        gallery = Gallery(Path(folder))
        gallery.add(
            "multiples",
            partial(draw_multiples, panels),
            section="multiples",
            alt="Each quantity in the reference and in the window; the table above has numbers.",
            caption="Filled grey: the reference. Line or blue bar: the window. Each patient counts "
            "once. The eight of each kind that differ most; what has drifted has an orange title.",
        )
        if whole["kind"].isin(["latents"]).any():
            gallery.add(
                "effects",
                partial(draw_effects, whole),
                section="multiples",
                alt="How far each latent and each probability has moved.",
                caption="In how many of 100 pairs an image of the window lies above one of the "
                "reference, less 50: each latent and each probability, in the order of their "
                "names. Orange: drifted.",
            )
        return gallery.figures


def _images(bundle: Bundle, moved: pd.DataFrame) -> list[ViewerImage]:
    """Return the images that can be read, with the quantity in which each counts most."""
    preprocessing = BundlePreprocessing(**bundle.description["images"])
    shown = []
    for row in moved.itertuples():
        read = read_image(str(row.image), preprocessing, gate=False)
        if read.pixels is not None:
            picture = jpeg_url(Image.fromarray(read.pixels), max_bytes=MAX_JPEG_BYTES)
            name = str(row.image).rsplit("/", 1)[-1]
            shown.append(ViewerImage(name, [name, str(row.because)], [View("Original", picture)]))
    return shown
