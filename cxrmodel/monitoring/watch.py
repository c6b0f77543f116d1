"""From scored images to a page, a table and a verdict: `<store>/_drift/<bundle>/<window>/`.

The manifest is written last, by `keep`: a window without one was not finished, and is done again.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.inference.bundle import Bundle, read_bundle
from cxrmodel.inference.score_parts import DIGEST_CHARS
from cxrmodel.inference.use_config import MonitorConfig
from cxrmodel.monitoring.drift import MIN_PATIENTS, Drift, find_drift
from cxrmodel.monitoring.page import effect_text, render_drift, verdict
from cxrmodel.monitoring.quantities import quantities_of, reference_of
from cxrmodel.monitoring.window import Window, digest_of, read_window
from cxrmodel.places import is_folder
from cxrmodel.report.prose import plural
from cxrmodel.storage.aliases import find_bundle
from cxrmodel.storage.disk import check_writable
from cxrmodel.storage.layout import MANIFEST_FILE
from cxrmodel.storage.small_files import open_small_files

PAGE, TABLE, IMAGES = "drift.html", "drift.parquet", "images.parquet"
FORMAT, FORMAT_VERSION = "cxrmodel-drift", 1
MAX_NAMED = 20  # results of an event


@dataclass(frozen=True)
class Watched:
    """What was found of a window.

    Attributes:
        location: Where its files are; empty where the window is too small.
        found: What the manifest says, as JSON.
        is_new: It was not looked at before.
        too_few: Why the window tells nothing; empty where it does.
    """

    location: str
    found: dict[str, Any]
    is_new: bool
    too_few: str = ""


def watch(config: MonitorConfig) -> Watched:
    """Compare the images that were scored last with a bundle's reference, and write what is found.

    Args:
        config: Which images, and which bundle.

    Returns:
        What was found; `keep` finishes it.

    Raises:
        CxrModelError: The bundle, the scores or the tables of the images cannot be used.
        ValueError: The bundle has a format that this version does not read, or the store is a
            folder that cannot be written to.
    """
    if is_folder(config.place):
        check_writable(store=Path(config.store.root))
    bundle = read_bundle(find_bundle(config.bundle, config.store.root))
    reference = reference_of(bundle)
    window = read_window(config, bundle)
    too_few = _too_few(reference, window)
    if too_few:
        return Watched("", {}, is_new=False, too_few=too_few)
    digest = digest_of(window, bundle, config)
    location = f"{config.place}/{bundle.digest[:DIGEST_CHARS]}/{digest[:DIGEST_CHARS]}"
    files = open_small_files(location)
    if MANIFEST_FILE in files.find():
        return Watched(location, _read(files.read([MANIFEST_FILE])[MANIFEST_FILE], location), False)
    quantities = quantities_of(bundle)
    drift = find_drift(reference, window.rows, quantities, level=config.level)
    if drift.results.empty:
        return Watched("", {}, is_new=False, too_few=_nothing_tested(window))
    page = render_drift(bundle, reference, window, quantities, drift, config.level)
    files.write(TABLE, _to_parquet(drift.results))
    files.write(IMAGES, _to_parquet(drift.moved))
    files.write(PAGE, page.encode())
    return Watched(location, _describe(bundle, window, drift, config.level), is_new=True)


def keep(watched: Watched) -> None:
    """Write the manifest of a window, after everybody was told of it."""
    text = json.dumps(watched.found, indent=1)
    open_small_files(watched.location).write(MANIFEST_FILE, f"{text}\n".encode())


def _too_few(reference: pd.DataFrame, window: Window) -> str:
    num = reference["patient"].nunique()
    if num < MIN_PATIENTS:
        return (
            f"The bundle's reference has {len(reference):,} images of {num} patients, and a test "
            f"needs {MIN_PATIENTS} patients. Train with more validation images."
        )
    if window.num_patients < MIN_PATIENTS:
        left_out = (
            f" ({plural(window.num_seen, 'image')} of patients of train or validation left out)"
            if window.num_seen
            else ""
        )
        return (
            f"The window has {plural(len(window.rows), 'image')} of "
            f"{plural(window.num_patients, 'patient')}"
            f"{left_out}, and a test needs {MIN_PATIENTS} patients. Score more images, or give a "
            "larger `newest` or an earlier `since`."
        )
    return ""


def _nothing_tested(window: Window) -> str:
    statuses = window.rows["status"].value_counts()
    counts = ", ".join(f"{status} {num:,}" for status, num in statuses.items())
    return (
        f"Nothing can be tested of the window of {len(window.rows):,} images ({counts}): each "
        f"quantity is known of fewer than {MIN_PATIENTS} patients, on one side or both. Look at "
        "the column `status` of the scores for what is wrong with the images."
    )


def _describe(bundle: Bundle, window: Window, drift: Drift, level: float) -> dict[str, Any]:
    drifted = drift.results[drift.results["is_drift"]].head(MAX_NAMED)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "bundle": bundle.digest,
        "is_drift": drift.is_found,
        "p": drift.p,
        "level": level,
        "verdict": verdict(drift, level),
        "num_images": len(window.rows),
        "num_patients": window.num_patients,
        "scored_from": str(window.rows["scored_at"].min()),
        "scored_to": str(window.rows["scored_at"].max()),
        "drifted": [
            {
                "source": row["source"],
                "quantity": row["quantity"],
                "effect": effect_text(row),
                "p": float(row["p_family"]),
            }
            for _, row in drifted.iterrows()
        ],
        "untested": drift.untested,
        "notes": list(window.notes),
    }


def _read(content: bytes, location: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(content)
        if (found["format"], found["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"it is no {FORMAT} of version {FORMAT_VERSION}")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedArtifactError(
            f"{location}/{MANIFEST_FILE} cannot be read: {error}. Delete it, and run again."
        ) from error
    return found


def _to_parquet(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), stream, compression="zstd")
    return stream.getvalue()
