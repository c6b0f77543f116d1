"""Reports that were written earlier, as a comparison reads them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]
import fsspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, create_model
from pydantic_core import ErrorDetails

from cxrmodel.data.label_columns import LABEL_DTYPE, label_values
from cxrmodel.errors import DataError
from cxrmodel.evaluation.metrics import HEADLINE_METRICS
from cxrmodel.evaluation.predictions import PREFIX, Predictions
from cxrmodel.report.figures.gallery import jpeg_url
from cxrmodel.report.figures.reconstructions import Example
from cxrmodel.report.run import Run
from cxrmodel.report.viewer import read_examples
from cxrmodel.storage.layout import (
    METRICS_FILE,
    REPORT_FILE,
    SPLIT_FILE,
    TEST_PREDICTIONS_FILE,
    VIEWER_FILE,
)

T = TypeVar("T")

SAMPLES_FILE = "figures/samples.png"
FILES = (METRICS_FILE, TEST_PREDICTIONS_FILE, VIEWER_FILE, SAMPLES_FILE)
PART_COLUMNS = ["image", "patient_id", "split"]
LABEL_PREFIX = "y_"
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
MAX_SAMPLES_BYTES = 250_000
MAX_PROBLEMS = 3


@dataclass(frozen=True)
class FinishedRun:
    """A report that was written earlier.

    Attributes:
        root: Path or URL of its folder, as it was given.
        name: Of its folder.
        metrics: Content of metrics.json.
        table: Predictions, labels and errors: a row per test image, in the order of their names.
        predictions: The same without the errors.
        parts: `image`, `patient_id` and `split` of all images of the run; None where an older
            version of this package wrote the report.
        missing: Files with images that it lacks, because an older version of this package wrote it
            or because it had nothing to show.
        samples: `data:` URL of the images that were decoded from random latents.
        examples: The images that its page shows beside their reconstructions.
        letter: What a comparison calls it.
    """

    root: str
    name: str
    metrics: dict[str, Any]
    table: pd.DataFrame
    predictions: Predictions
    parts: pd.DataFrame | None
    missing: list[str]
    samples: str | None
    examples: list[Example]
    letter: str = ""

    def only(self, images: pd.Series) -> FinishedRun:
        """Return the run with the predictions of some of its test images alone."""
        if len(images) == len(self.table):
            return self
        table = self.table[self.table["image"].isin(images)].reset_index(drop=True)
        return replace(self, table=table, predictions=_to_predictions(table))


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
    root = url.removesuffix(REPORT_FILE).rstrip("/") or ("/" if url.startswith("/") else ".")
    with _explained(root):
        files, folder = fsspec.core.url_to_fs(root)
        has_parts = files.exists(f"{folder}/{SPLIT_FILE}")
        missing = [name for name in FILES if not files.exists(f"{folder}/{name}")]
    if METRICS_FILE in missing:
        raise DataError(f"{root} has no {METRICS_FILE}, so it is not a report. {REMEDY}")
    if TEST_PREDICTIONS_FILE in missing:
        raise DataError(
            f"{root} has no {TEST_PREDICTIONS_FILE}, so it is a report of an older version of the "
            f"package. {REMEDY}"
        )

    def read(name: str, parse: Callable[[bytes], T]) -> T:
        with _explained(f"{root}/{name}"):
            return parse(files.cat_file(f"{folder}/{name}"))

    metrics = _parse_metrics(read(METRICS_FILE, bytes), f"{root}/{METRICS_FILE}")
    table = read(TEST_PREDICTIONS_FILE, lambda content: pd.read_parquet(io.BytesIO(content)))
    _check_table(table, metrics, f"{root}/{TEST_PREDICTIONS_FILE}")
    table = _known_as_numbers(table.sort_values("image", ignore_index=True))
    return FinishedRun(
        root=root,
        name=folder.rsplit("/", 1)[-1],
        metrics=metrics,
        table=table,
        predictions=_to_predictions(table),
        parts=read(SPLIT_FILE, _parse_parts) if has_parts else None,
        missing=missing,
        samples=None if SAMPLES_FILE in missing else read(SAMPLES_FILE, _photograph),
        examples=[] if VIEWER_FILE in missing else read(VIEWER_FILE, read_examples),
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
        found = "; ".join(_problem(one) for one in error.errors()[:MAX_PROBLEMS])
        raise DataError(
            f"{where} was written by another version of the package: {found}. {REMEDY}"
        ) from error
    return metrics


def _problem(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "the whole"
    return f"it has no {place}" if error["type"] == "missing" else f"{place}: {error['msg']}"


def _check_table(table: pd.DataFrame, metrics: dict[str, Any], where: str) -> None:
    names = [name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX)]
    expected = ["image", "patient_id", "l1", *(LABEL_PREFIX + name for name in names)]
    missing = [name for name in expected if name not in table.columns]
    if missing:
        raise DataError(f"{where} has no column {missing[0]}. {REMEDY}")
    unknown = set(names) ^ set(metrics["classifier"]["per_class"])
    if unknown:
        raise DataError(
            f"{where} and {METRICS_FILE} beside it are of different runs: only one of them has "
            f"{min(unknown)}. {REMEDY}"
        )


def _parse_parts(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content), columns=PART_COLUMNS).astype("str")


def _known_as_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with labels of 1, 0, or NaN where unknown, whatever type they have."""
    names = [name for name in table.columns if name.startswith(LABEL_PREFIX)]
    values = label_values(table, names)
    return table.assign(**{name: values[:, column] for column, name in enumerate(names)})


def _photograph(png: bytes) -> str:
    return jpeg_url(Image.open(io.BytesIO(png)).convert("RGB"), max_bytes=MAX_SAMPLES_BYTES)


def read_predictions_of(url: str, name: str) -> tuple[pd.DataFrame, Predictions]:
    """Read the predictions of one part of a split from a report's folder.

    Args:
        url: Path or fsspec URL of the folder, or of its report.html.
        name: Of the file.

    Returns:
        A row per image, as `write_predictions` wrote it, in the order of their names; and the same
        as predictions.

    Raises:
        DataError: The file cannot be read.
    """
    place = f"{url.removesuffix(REPORT_FILE).rstrip('/')}/{name}"
    with _explained(place):
        table = pd.read_parquet(place).sort_values("image", ignore_index=True)
        table = _known_as_numbers(table)
        return table, _to_predictions(table)


def write_predictions(run: Run, part: str, path: Path) -> None:
    """Write what a run says of the images of a part of its split.

    Columns: `image`, `patient_id`, `l1`, and `y_` and `p_` of each pathology; a row per image.
    """
    rows = (run.images["split"] == part).to_numpy()
    table = run.images.loc[rows, ["image", "patient_id"]].reset_index(drop=True)
    table["l1"] = run.latents.loc[rows, "l1"].to_numpy()
    told = run.predictions[part]
    labels = pd.DataFrame(told.labels, columns=[LABEL_PREFIX + name for name in told.pathologies])
    labels = labels.astype(LABEL_DTYPE)
    probabilities = pd.DataFrame(
        told.probabilities.astype(np.float32), columns=[PREFIX + name for name in told.pathologies]
    )
    written = pd.concat([table, labels, probabilities], axis="columns")
    written.to_parquet(path, index=False, compression="zstd")


def write_parts(run: Run, path: Path) -> None:
    """Write `image`, `patient_id` and `split`, a row per image of the run."""
    run.images[PART_COLUMNS].to_parquet(path, index=False, compression="zstd")


def _to_predictions(table: pd.DataFrame) -> Predictions:
    columns = [name for name in table.columns if name.startswith(PREFIX)]
    names = tuple(column.removeprefix(PREFIX) for column in columns)
    patients: NDArray[np.int64] = pd.factorize(table["patient_id"], sort=True)[0].astype(np.int64)
    labels = label_values(table, [LABEL_PREFIX + name for name in names])
    return Predictions(names, labels, table[columns].to_numpy(dtype=np.float64), patients)
