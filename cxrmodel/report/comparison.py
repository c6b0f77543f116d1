"""Two or more finished runs on one page: what differs, and whether the difference is chance."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxrmodel.errors import DataError
from cxrmodel.evaluation.audit.estimates import PatientDraws
from cxrmodel.evaluation.bootstrap import Resamples, resample_patients
from cxrmodel.evaluation.evaluate import HEADLINE_METRICS
from cxrmodel.evaluation.intervals import (
    MIN_PATIENTS,
    NUM_RESAMPLES,
    Difference,
    mean_over_classes,
    percentile_interval,
)
from cxrmodel.report.compared_films import compare_films
from cxrmodel.report.figures.reconstructions import Examples
from cxrmodel.report.films import FILE as FILMS_FILE
from cxrmodel.report.films import read_films
from cxrmodel.report.html import make_environment
from cxrmodel.report.jpeg import jpeg_url
from cxrmodel.report.judged import FILE, to_predictions

PICTURES = ("samples",)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MIN_RUNS = 2
MAX_PICTURE_BYTES = 250_000
FINGERPRINT_LENGTH = 16  # enough to tell data sets apart, and to fit a column


@dataclass(frozen=True)
class FinishedRun:
    """A report that was written earlier.

    Attributes:
        name: Of its folder.
        metrics: Content of metrics.json.
        judged: Predictions, labels and errors, a row a test image, by image name.
        pictures: `data:` URLs of some of its figures, by name.
        films: The reconstructions that its page shows, None where it shows none.
    """

    name: str
    metrics: dict[str, Any]
    judged: pd.DataFrame
    pictures: dict[str, str]
    films: Examples | None


@dataclass(frozen=True)
class ComparedRun:
    """A run beside the first one.

    Attributes:
        run: The run.
        is_paired: Whether both were judged on the same images with the same labels.
        macro: Differences in the macro averages, by metric.
        auroc: Differences in AUROC, by pathology.
        l1: Difference in reconstruction error.
    """

    run: FinishedRun
    is_paired: bool
    macro: dict[str, Difference]
    auroc: dict[str, Difference]
    l1: Difference


def read_finished_run(url: str) -> FinishedRun:
    """Read a report's folder.

    Args:
        url: Path or fsspec URL of the folder of a report stage, or of its report.html.

    Raises:
        DataError: It is not the folder of a report, or of an older version without predictions.
    """
    root = url.removesuffix("report.html").rstrip("/")
    files, folder = fsspec.core.url_to_fs(root)
    for name in ("metrics.json", FILE):
        if not files.exists(f"{folder}/{name}"):
            raise DataError(
                f"{root} has no {name}, so it is not the folder of a report, or of an older "
                "version. Give the folder that the pipeline printed after 'report:'."
            )
    judged = pd.read_parquet(io.BytesIO(files.cat_file(f"{folder}/{FILE}")))
    optional = [f"figures/{name}.png" for name in PICTURES] + [FILMS_FILE]
    found = {
        name: files.cat_file(f"{folder}/{name}")
        for name in optional
        if files.exists(f"{folder}/{name}")
    }
    films = found.pop(FILMS_FILE, None)
    return FinishedRun(
        folder.rsplit("/", 1)[-1],
        json.loads(files.cat_file(f"{folder}/metrics.json")),
        judged.sort_values("image"),
        {Path(name).stem: _photograph(picture) for name, picture in found.items()},
        None if films is None else read_films(films),
    )


def _photograph(picture: bytes) -> str:
    return jpeg_url(Image.open(io.BytesIO(picture)).convert("RGB"), max_bytes=MAX_PICTURE_BYTES)


def compare_runs(first: FinishedRun, other: FinishedRun, *, seed: int = 0) -> ComparedRun:
    """Return the other run's numbers less the first one's, paired where that is possible.

    Args:
        first: What is compared with.
        other: What is compared.
        seed: Seed of the bootstrap.
    """
    is_paired = _same_images(first.judged, other.judged)
    drawn = [_resample(run, seed) for run in (first, other)] if is_paired else []
    macro = {
        metric: _difference(
            *(run.metrics["classifier"][f"macro_{metric}"] for run in (first, other)),
            *(mean_over_classes(getattr(resamples, metric)) for resamples in drawn),
        )
        for metric in HEADLINE_METRICS
    }
    entries = [run.metrics["classifier"]["per_class"] for run in (first, other)]
    names = [name for name in entries[0] if name in entries[1]]
    auroc = {
        name: _difference(
            *(entry[name]["auroc"] for entry in entries),
            *(resamples.auroc[:, column] for resamples in drawn),
        )
        for column, name in enumerate(names)
    }
    return ComparedRun(other, is_paired, macro, auroc, _compare_l1(first, other, is_paired, seed))


def _same_images(one: pd.DataFrame, two: pd.DataFrame) -> bool:
    """Say whether images, patients and labels are the same, and enough for an interval."""
    columns = [name for name in one.columns if name[:2] != "p_" and name != "l1"]
    if columns != [name for name in two.columns if name[:2] != "p_" and name != "l1"]:
        return False
    same = one[columns].reset_index(drop=True).equals(two[columns].reset_index(drop=True))
    return same and one["patient_id"].nunique() >= MIN_PATIENTS


def _resample(run: FinishedRun, seed: int) -> Resamples:
    entries = run.metrics["classifier"]["per_class"]
    test = to_predictions(run.judged)
    found = [entries[name]["threshold"] for name in test.pathologies]
    thresholds = np.array([np.nan if value is None else value for value in found])
    return resample_patients(test, thresholds, num_resamples=NUM_RESAMPLES, seed=seed)


def _difference(
    one: float | None, two: float | None, *resamples: NDArray[np.float64]
) -> Difference:
    if one is None or two is None:
        return Difference(None, None)
    bounds = percentile_interval(resamples[1] - resamples[0]) if resamples else None
    return Difference(two - one, bounds)


def _compare_l1(first: FinishedRun, other: FinishedRun, is_paired: bool, seed: int) -> Difference:
    one, two = (run.metrics["vae"]["test_l1"] for run in (first, other))
    if not is_paired:
        return _difference(one, two)
    change = (other.judged["l1"].to_numpy() - first.judged["l1"].to_numpy()).astype(np.float64)
    draws = PatientDraws(to_predictions(first.judged).patients, seed=seed)
    mean = draws.mean(change, np.ones(len(change), dtype=bool), "no test image")
    return Difference(mean.value, mean.interval)


def render_comparison(runs: list[FinishedRun], *, seed: int = 0) -> str:
    """Return one self-contained page; the first run is what the others are compared with.

    Raises:
        ValueError: Fewer than two runs were given.
    """
    if len(runs) < MIN_RUNS:
        raise ValueError(f"A comparison needs two reports or more, and {len(runs)} was given.")
    first, *others = runs
    compared = [compare_runs(first, other, seed=seed) for other in others]
    shown = [run.films for run in runs if run.films is not None]
    compared_films = compare_films(shown, LETTERS) if len(shown) == len(runs) else None
    template = make_environment(escape=True).get_template("comparison.html.j2")
    return template.render(
        runs=runs,
        first=first,
        compared=compared,
        metrics=[f"macro_{metric}" for metric in HEADLINE_METRICS],
        settings=differing_settings([_described(run.metrics) for run in runs]),
        pictures=[name for name in PICTURES if all(name in run.pictures for run in runs)],
        films=compared_films.films if compared_films else [],
        scale=compared_films.scale if compared_films else None,
        letters=LETTERS,
    )


def _described(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return settings, data and packages of a run, by section."""
    provenance = metrics.get("provenance", {})
    fingerprint = metrics.get("data", {}).get("fingerprint", "")[:FINGERPRINT_LENGTH]
    config: dict[str, Any] = metrics.get("config", {})
    return config | {
        "data": config.get("data", {}) | {"fingerprint": fingerprint},
        "packages": provenance.get("packages") or {},
    }


def differing_settings(configs: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the settings that are not the same everywhere, with each run's value."""
    flat = [
        {
            f"{section}.{name}": value
            for section, values in config.items()
            for name, value in values.items()
        }
        for config in configs
    ]
    names = list(dict.fromkeys(name for config in flat for name in config))
    rows = [(name, [str(config.get(name, "\u2013")) for config in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]
