"""Labelled images that neither of two models was trained on, with what both tell of them."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.files.listing import ListedFile
from cxrmodel.data.files.root import read_location
from cxrmodel.errors import NothingToJudgeError
from cxrmodel.evaluation.promotion import HeldOut
from cxrmodel.inference.bundle import Bundle, patient_hash, read_train_table
from cxrmodel.inference.calibration import read_labels
from cxrmodel.inference.image_files import OK
from cxrmodel.inference.predictor import Model
from cxrmodel.inference.scoring import ListedReader, list_images
from cxrmodel.progress import Progress, ReportProgress, silent

NOT_FOUND, NAMED_TWICE, NOT_READ = "no such image", "named twice", "not readable"
SAME_PIXELS, SAME_PATIENT = "pixels of a train image", "patient of a train image"

LeftOut = dict[str, int]


def read_held_out(
    champion: Model,
    challenger: Model,
    table: str,
    root: str = "",
    *,
    report: ReportProgress = silent,
) -> tuple[HeldOut, LeftOut]:
    """Score labelled images with two models, and leave out what either was trained on.

    An image is one of training where its pixels, as that model sees them, or its patient's id are
    in the bundle's `train.parquet`.

    Args:
        champion: One model.
        challenger: The other one.
        table: CSV or Parquet file, or its URL, as for `read_labels`; an image may also be named by
            its place below the root, or by the end of its path.
        root: Folder or URL of the images; the table's folder without.
        report: Told of the progress.

    Returns:
        The images with what both tell, and how many were left out for which reason.

    Raises:
        NothingToJudgeError: The models have no label in common, or no image is left.
        DataError: The table cannot be used.
    """
    labels = tuple(label for label in challenger.labels if label in champion.labels)
    if not labels:
        raise NothingToJudgeError(
            f"The two bundles have no label in common. The champion's: {_listed(champion.labels)}; "
            f"the challenger's: {_listed(challenger.labels)}. Compare bundles of the same labels, "
            "or give the challenger an alias of its own."
        )
    truth = read_labels(Path(table), labels, read_location(table))
    place = root or table.rpartition("/")[0] or "."
    names = truth["image"].str.removeprefix(f"{place.rstrip('/')}/")
    files = _find(names, list_images(place))
    reasons = pd.Series(np.where(files.isna(), NOT_FOUND, ""), index=truth.index)
    _mark(reasons, files.index[files.notna() & files.duplicated()], NAMED_TWICE)
    here = truth[reasons == ""]
    reader = ListedReader(place, files[reasons == ""])
    told = []
    for model in (champion, challenger):
        scores, crc32 = _score(model, reader, report)
        told.append(scores[[f"p_{label}" for label in labels]].set_axis(here.index))
        _mark(reasons, here.index[scores["status"] != OK], NOT_READ)
        of_train = _of_train(model.bundle, crc32, here["patient_id"])
        for reason, members in of_train.items():
            _mark(reasons, here.index[members], reason)
    kept = reasons[reasons == ""].index
    left_out = dict(Counter(map(str, reasons[reasons != ""])))
    if not len(kept):
        counts = ", ".join(f"{name} {count:,}" for name, count in left_out.items()) or "no rows"
        raise NothingToJudgeError(
            f"No image of {table} is left to judge by ({counts}). Give images of patients that "
            "neither bundle was trained on, and in data.root the folder or URL that holds them."
        )
    champions, challengers = (scores.loc[kept].to_numpy(np.float64) for scores in told)
    patients = pd.factorize(truth["patient_id"][kept])[0].astype(np.int64)
    values = truth.loc[kept, list(labels)].to_numpy(np.float64, na_value=np.nan)
    return HeldOut(labels, values, champions, challengers, patients), left_out


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "none"


def _find(names: pd.Series, listed: Sequence[ListedFile]) -> pd.Series:
    """Return the file of each image, None where none or several are called so.

    An image is named by the end of its path; one of several data sets, each below a folder of its
    own, by that folder and the end of its path there.
    """
    by_end: dict[str, ListedFile | None] = {}
    by_folder: dict[str, ListedFile | None] = {}
    for depth in {name.removeprefix("./").count("/") for name in names}:
        for file in listed:
            folder, *parts = file.uri.split("/")
            end = "/".join([folder, *parts][-depth - 1 :])
            by_end[end] = None if end in by_end else file
            if 0 < depth < len(parts):
                end = "/".join([folder, *parts[-depth:]])
                by_folder[end] = None if end in by_folder else file
    found = {**by_folder, **by_end}
    return names.map(lambda name: found.get(name.removeprefix("./"))).astype("object")


def _score(
    model: Model, reader: ListedReader, report: ReportProgress
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the rows of `predict_files`, and each image's checksum, -1 without pixels."""
    tables, checksums = [model.empty_table], []
    # Without the gate: what one model refuses would be missing in the pair.
    for images in model.read_files(
        reader.names, read=reader.read, num_workers=reader.num_workers, gate=False
    ):
        tables.append(model.score_read(images))
        checksums += [
            -1 if image.pixels is None else zlib.crc32(image.pixels.data) for image in images
        ]
        report(Progress("judge", len(checksums), len(reader.names), unit="images"))
    return pd.concat(tables, ignore_index=True), np.array(checksums, dtype=np.int64)


def _of_train(
    bundle: Bundle, crc32: NDArray[np.int64], patients: pd.Series
) -> dict[str, NDArray[np.bool_]]:
    train = read_train_table(bundle)
    salt = bundle.description["salt"]
    hashes = {patient: patient_hash(salt, patient) for patient in patients.unique()}
    return {
        SAME_PIXELS: np.isin(crc32, train["crc32"].to_numpy().astype(np.int64)),
        SAME_PATIENT: patients.map(hashes).isin(train["patient"]).to_numpy(),
    }


def _mark(reasons: pd.Series, rows: pd.Index, reason: str) -> None:
    """Give a reason to rows that have none."""
    reasons[[row for row in rows if reasons[row] == ""]] = reason
