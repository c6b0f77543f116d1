"""Two or more finished runs on one page: what differs, and whether the difference is chance."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, TypeVar

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]
import fsspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, create_model

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
from cxrmodel.evaluation.predictions import PREFIX
from cxrmodel.report.compared_films import compare_films
from cxrmodel.report.figures.reconstructions import Examples
from cxrmodel.report.films import read_films
from cxrmodel.report.html import make_environment
from cxrmodel.report.jpeg import jpeg_url
from cxrmodel.report.judged import LABEL_PREFIX, to_predictions
from cxrmodel.report.words import names_of
from cxrmodel.storage.layout import (
    EXAMPLES_FILE,
    FIGURES_FOLDER,
    METRICS_FILE,
    REPORT_FILE,
    TEST_PREDICTIONS_FILE,
)

T = TypeVar("T")

PICTURES = ("samples",)
REMEDY = (
    "Give the folder that the pipeline printed after 'report:', or make the report anew: run the "
    "pipeline again with the same settings."
)
UNREADABLE = (
    OSError,
    ValueError,  # also what fsspec, pandas and pyarrow raise
    KeyError,  # a table without a column
    ImportError,  # fsspec's, of a protocol whose package is not installed
    Image.DecompressionBombError,
    aiohttp.ClientError,
    botocore.exceptions.BotoCoreError,
)
MIN_RUNS = 2
MAX_PICTURE_BYTES = 250_000
FINGERPRINT_LENGTH = 16  # enough to tell data sets apart, and to fit a column


@dataclass(frozen=True)
class FinishedRun:
    """A report that was written earlier.

    Attributes:
        name: Of its folder.
        metrics: Content of metrics.json.
        judged: Predictions, labels and errors, a row per test image, by image name.
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
        is_same: Whether all numbers of both are the same.
        unpaired: Why there are no intervals; empty where both were judged on the same images with
            the same labels.
        macro: Differences in the macro averages, by metric.
        auroc: Differences in AUROC, by pathology.
        l1: Difference in reconstruction error.
    """

    run: FinishedRun
    is_same: bool
    unpaired: str
    macro: dict[str, Difference]
    auroc: dict[str, Difference]
    l1: Difference

    @property
    def is_paired(self) -> bool:
        """Whether both were judged on the same images with the same labels."""
        return not self.unpaired


class _Known(BaseModel):
    """A part of metrics.json that a comparison reads; it may hold more."""

    model_config = ConfigDict(strict=True)


class _Class(_Known):
    auroc: FiniteFloat | None
    threshold: FiniteFloat | None


_SCORES: dict[str, Any] = {
    f"macro_{metric}": (FiniteFloat | None, ...) for metric in HEADLINE_METRICS
}
_Classifier = create_model(
    "_Classifier", __base__=_Known, per_class=(dict[str, _Class], ...), **_SCORES
)


class _VAE(_Known):
    test_l1: FiniteFloat | None
    epochs: int | None = None


class _Split(_Known):
    num_test: int


class _Provenance(_Known):
    code: str
    packages: dict[str, Any] | None = None


class _Data(_Known):
    fingerprint: str = ""


class _Config(_Known):
    data: dict[str, Any] = {}


class _Metrics(_Known):
    classifier: _Classifier
    vae: _VAE
    split: _Split
    provenance: _Provenance
    data: _Data = _Data()
    config: _Config = _Config()


def read_finished_run(url: str) -> FinishedRun:
    """Read a report's folder.

    Args:
        url: Path or fsspec URL of the folder of a report stage, or of its report.html.

    Raises:
        DataError: It is not the folder of a report, or of another version of this package, or a
            file cannot be read.
    """
    files_of = {name: f"{FIGURES_FOLDER}/{name}.png" for name in PICTURES}
    root = url.removesuffix(REPORT_FILE).rstrip("/") or ("/" if url.startswith("/") else ".")
    with _explained(root):
        files, folder = fsspec.core.url_to_fs(root)
        names = [METRICS_FILE, TEST_PREDICTIONS_FILE, EXAMPLES_FILE, *files_of.values()]
        there = [name for name in names if files.exists(f"{folder}/{name}")]
    for name in (METRICS_FILE, TEST_PREDICTIONS_FILE):
        if name not in there:
            raise DataError(
                f"{root} has no {name}, so it is not the folder of a report, or of an older "
                f"version. {REMEDY}"
            )

    def read(name: str, parse: Callable[[bytes], T]) -> T:
        with _explained(f"{root}/{name}"):
            return parse(files.cat_file(f"{folder}/{name}"))

    metrics = _parse_metrics(read(METRICS_FILE, bytes), f"{root}/{METRICS_FILE}")
    judged = read(TEST_PREDICTIONS_FILE, lambda content: pd.read_parquet(io.BytesIO(content)))
    _check_judged(judged, metrics, f"{root}/{TEST_PREDICTIONS_FILE}")
    return FinishedRun(
        folder.rsplit("/", 1)[-1],
        metrics,
        judged.sort_values("image", ignore_index=True),
        {name: read(file, _photograph) for name, file in files_of.items() if file in there},
        read(EXAMPLES_FILE, read_films) if EXAMPLES_FILE in there else None,
    )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say of what an error is that reading raised."""
    try:
        yield
    except UNREADABLE as error:
        raise DataError(f"{what} cannot be read ({_line(error)}). {REMEDY}") from error


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _parse_metrics(content: bytes, where: str) -> dict[str, Any]:
    try:
        metrics: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({_line(error)}). {REMEDY}") from error
    try:
        _Metrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DataError(
            f"{where} is not of this version of the package: {place}: {first['msg']}. {REMEDY}"
        ) from error
    return metrics


def _check_judged(judged: pd.DataFrame, metrics: dict[str, Any], where: str) -> None:
    names = [name.removeprefix(PREFIX) for name in judged.columns if name.startswith(PREFIX)]
    expected = ["image", "patient_id", "l1", *(LABEL_PREFIX + name for name in names)]
    missing = [name for name in expected if name not in judged.columns]
    if missing:
        raise DataError(f"{where} has no column {missing[0]}. {REMEDY}")
    unknown = set(names) ^ set(metrics["classifier"]["per_class"])
    if unknown:
        raise DataError(
            f"{where} and {METRICS_FILE} beside it are of different runs: only one of them has "
            f"{min(unknown)}. {REMEDY}"
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
    unpaired = _unpaired(first.judged, other.judged)
    drawn = [] if unpaired else [_resample(run, seed) for run in (first, other)]
    macro = {
        metric: _difference(
            *(run.metrics["classifier"][f"macro_{metric}"] for run in (first, other)),
            *(mean_over_classes(getattr(resamples, metric)) for resamples in drawn),
        )
        for metric in HEADLINE_METRICS
    }
    entries = [run.metrics["classifier"]["per_class"] for run in (first, other)]
    columns = {name: column for column, name in enumerate(_pathologies(first.judged))}
    auroc = {
        name: _difference(
            *(entry[name]["auroc"] for entry in entries),
            *(resamples.auroc[:, columns[name]] for resamples in drawn),
        )
        for name in entries[0]
        if name in entries[1]
    }
    is_same = first.metrics == other.metrics and first.judged.equals(other.judged)
    l1 = _compare_l1(first, other, not unpaired, seed)
    return ComparedRun(other, is_same, unpaired, macro, auroc, l1)


def _pathologies(judged: pd.DataFrame) -> list[str]:
    return list(to_predictions(judged).pathologies)


def _unpaired(one: pd.DataFrame, two: pd.DataFrame) -> str:
    """Say why there is no interval of a difference; nothing where there is one."""
    names = [_pathologies(judged) for judged in (one, two)]
    if set(names[0]) != set(names[1]):
        return f"Only one of them has {names_of(sorted(set(names[0]) ^ set(names[1])))}"
    columns = ["image", "patient_id", *(LABEL_PREFIX + name for name in names[0])]
    if names[0] != names[1] or not one[columns].equals(two[columns]):
        return "The test images or their labels are not the same"
    if one["patient_id"].nunique() < MIN_PATIENTS:
        return f"There are fewer than {MIN_PATIENTS} test patients"
    return ""


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
    letters = letters_of(len(runs))
    compared_films = compare_films(shown, letters) if len(shown) == len(runs) else None
    pathologies = dict.fromkeys(n for run in runs for n in run.metrics["classifier"]["per_class"])
    template = make_environment(escape=True).get_template("comparison.html.j2")
    return template.render(
        runs=runs,
        first=first,
        compared=compared,
        pathologies=list(pathologies),
        metrics=[f"macro_{metric}" for metric in HEADLINE_METRICS],
        settings=differing_settings([_described(run.metrics) for run in runs]),
        pictures=[name for name in PICTURES if all(name in run.pictures for run in runs)],
        films=compared_films.films if compared_films else [],
        scale=compared_films.scale if compared_films else None,
        letters=letters,
    )


def letters_of(count: int) -> list[str]:
    """Name runs as columns of a spreadsheet are: A to Z, then AA, AB and so on."""
    rounds = (itertools.product(ascii_uppercase, repeat=length) for length in itertools.count(1))
    names = ("".join(letters) for letters in itertools.chain.from_iterable(rounds))
    return list(itertools.islice(names, count))


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
    flat = [dict(_settings(config)) for config in configs]
    names = list(dict.fromkeys(name for config in flat for name in config))
    rows = [(name, [str(config.get(name, "\u2013")) for config in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, values in config.items():
        if not isinstance(values, dict):  # a setting of no section
            yield section, values
            continue
        for name, value in values.items():
            yield f"{section}.{name}", value
