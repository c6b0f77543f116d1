"""Train, validation and test, about 70 / 15 / 15, and the check that no patient is in two."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from cxrmodel.config import SplitConfig
from cxrmodel.data.datasets.nih import TEST_LIST, TRAIN_VAL_LIST
from cxrmodel.data.label_columns import known_abnormal
from cxrmodel.data.ledger import Reason, ledger, warn_of_losses, write_ledger
from cxrmodel.errors import LeakageError, SplitError
from cxrmodel.storage.layout import IMAGES_FILE, INDEX_FILE, LEAKAGE_FILE, OK, SPLIT_FILE

PARTS = ("train", "val", "test")
NUM_FOLDS, NUM_TRAIN_FOLDS, NUM_VAL_FOLDS = 20, 14, 3  # the other 3 are test
OFFICIAL_FOLDS = 8  # one of train_val's becomes val: with NIH's lists, about 67 / 10 / 23
ENOUGH_ROWS = 6  # of either kind, for two draws of scikit-learn in sequence; with one kind, 4
SHOWN_PATIENTS = 5
MORE_PATIENTS = (
    "Use images of more patients: data.root, or data.phantom_images where they are synthetic."
)

Labels = NDArray[np.str_]

logger = logging.getLogger(__name__)


class TooFewError(SplitError):
    """There are fewer patients or images than the method needs."""


def split_images(
    config: SplitConfig,
    index: Path,
    images: Path,
    directory: Path,
    left_out: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Write split.parquet, leakage.json and excluded.parquet.

    Args:
        config: Method and seed.
        index: Folder of the index stage.
        images: Folder of the images stage; only its `ok` images take part.
        directory: Folder to write to.
        left_out: How many images the index left out, by reason; for what an error suggests.

    Returns:
        The method, num_train, num_val, num_test, and leaking_test_fraction: the share of test
        images of which the patient is in train too.

    Raises:
        SplitError: Too few patients or images, or the official lists are missing.
        LeakageError: A method that keeps patients apart did not.
    """
    frame = pd.read_parquet(index / INDEX_FILE)
    status = pd.read_parquet(images / IMAGES_FILE).set_index("image")["status"]
    frame = frame[frame["image"].map(status) == OK].reset_index(drop=True)
    method = {"patient": _by_patient, "official": _official, "rows": _by_rows}[config.method]
    try:
        frame["split"] = method(frame, config.seed)
    except TooFewError as error:
        raise TooFewError(f"{error} {_remedy(left_out or {})}") from error
    unused = frame["split"] == ""
    excluded = ledger(
        frame["image"][unused], Reason.NOT_IN_OFFICIAL_LISTS, [""] * int(unused.sum())
    )
    frame = frame[~unused]
    warn_of_losses(excluded, len(frame))
    _require_all_parts(frame, config.method)
    leakage = {"method": config.method, **check_leakage(frame, allowed=config.method == "rows")}
    _write(frame, leakage, excluded, directory)
    shown = ("method", "num_train", "num_val", "num_test", "leaking_test_fraction")
    return {name: leakage[name] for name in shown}


def check_leakage(frame: pd.DataFrame, *, allowed: bool = False) -> dict[str, Any]:
    """Count patients who are in more than one part.

    Args:
        frame: One row per image, with the columns patient_id and split.
        allowed: Only count; else one shared patient is an error.

    Returns:
        num_<part> images and num_patients_<part> for train, val and test; shared_<a>_<b> patients
        for each pair; leaking_test_fraction, the share of test images whose patient is in train.

    Raises:
        LeakageError: A patient is shared, and that is not allowed.
    """
    patients = {part: set(frame.loc[frame["split"] == part, "patient_id"]) for part in PARTS}
    shared = {pair: patients[pair[0]] & patients[pair[1]] for pair in combinations(PARTS, 2)}
    for (one, other), both in shared.items():
        if both and not allowed:
            shown = ", ".join(sorted(both)[:SHOWN_PATIENTS])
            raise LeakageError(
                f"{len(both):,} patients are in both {one} and {other}, for example {shown}: "
                "scores on such a split would be of patients the model has seen. Correct the "
                "official lists, or set split.method to patient."
            )
    test = frame.loc[frame["split"] == "test", "patient_id"]
    return {
        **{f"num_{part}": int((frame["split"] == part).sum()) for part in PARTS},
        **{f"num_patients_{part}": len(patients[part]) for part in PARTS},
        **{f"shared_{one}_{other}": len(both) for (one, other), both in shared.items()},
        "leaking_test_fraction": float(test.isin(patients["train"]).mean()) if len(test) else 0.0,
    }


def _by_patient(frame: pd.DataFrame, seed: int) -> Labels:
    fold = _folds(frame, NUM_FOLDS, seed)
    bounds = [NUM_TRAIN_FOLDS, NUM_TRAIN_FOLDS + NUM_VAL_FOLDS]
    return np.array(PARTS)[np.searchsorted(bounds, fold, side="right")]


def _official(frame: pd.DataFrame, seed: int) -> Labels:
    named = frame["official"]
    if not {"train_val", "test"} <= set(named.dropna()):
        raise SplitError(
            f"split.method = official needs NIH's lists, and {TRAIN_VAL_LIST} or {TEST_LIST} is "
            "missing or names no usable image. Put both anywhere below data.root, beside the CSV "
            "for example, or set split.method to patient."
        )
    labels = named.map({"test": "test", "train_val": "train"}).fillna("").to_numpy(dtype="<U5")
    train_val = np.flatnonzero(labels == "train")
    try:
        fold = _folds(frame.iloc[train_val], OFFICIAL_FOLDS, seed)
    except TooFewError as error:
        raise TooFewError(f"Validation is drawn from {TRAIN_VAL_LIST}. {error}") from error
    labels[train_val[fold == 0]] = "val"
    return labels


def _by_rows(frame: pd.DataFrame, seed: int) -> Labels:
    """Split image by image as the notebook did; kept to compare with it."""
    rows, abnormal = np.arange(len(frame)), known_abnormal(frame)
    try:
        train, rest = train_test_split(rows, test_size=0.30, stratify=abnormal, random_state=seed)
        val, test = train_test_split(
            rest, test_size=0.5, stratify=abnormal[rest], random_state=seed
        )
    except ValueError as error:
        raise TooFewError(
            f"{_too_few(frame, 'split.method = rows')} With {ENOUGH_ROWS} images of "
            "each kind there is enough."
        ) from error
    labels = np.full(len(frame), "train", dtype="<U5")
    labels[val], labels[test] = "val", "test"
    leaking = frame["patient_id"].iloc[test].isin(frame["patient_id"].iloc[train]).mean()
    logger.warning(
        "split.method = rows: %.1f %% of the test images are of a patient who is also in train; "
        "scores on them do not tell how the model does on new patients",
        100 * leaking,
    )
    return labels


def _folds(frame: pd.DataFrame, num_folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each row: patients are dealt to folds of similar size and abnormality."""
    abnormal = known_abnormal(frame).astype(np.int64)
    patient, ids = pd.factorize(frame["patient_id"], sort=True)
    counts = np.zeros((len(ids), 2), np.int64)  # images of each patient: abnormal in column 1
    np.add.at(counts, (patient, abnormal), 1)
    if len(ids) < num_folds or counts.sum(axis=0).max(initial=0) < num_folds:
        raise TooFewError(
            f"{_too_few(frame, f'{num_folds} folds of patients')} At least {num_folds} patients, "
            f"and {num_folds} images with a listed finding or {num_folds} without, are needed."
        )
    return _deal(counts, num_folds, seed)[patient]


def _deal(counts: NDArray[np.int64], num_folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each patient, the one where Pearson's chi-squared grows least.

    Patients with the most images come first, in random order among equals. The statistic is that of
    the table of folds and kinds of images, compared in whole numbers so that rounding on some
    machine never decides. Among equal folds, the one with the fewest images wins, then the first.

    Args:
        counts: (P, 2) images of each patient, of either kind.
        num_folds: Folds to fill.
        seed: Seed of the order among equals.
    """
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    order = shuffled[np.argsort(-counts.sum(axis=1)[shuffled], kind="stable")]
    weights = counts * counts.sum(axis=0)[::-1]  # over the kinds' totals, times both of them
    filled = np.zeros((num_folds, 2), np.int64)
    fold = np.zeros(len(counts), np.int64)
    for patient in order.tolist():
        growth = filled @ weights[patient]
        best = np.flatnonzero(growth == growth.min())
        fold[patient] = best[filled[best].sum(axis=1).argmin()]
        filled[fold[patient]] += counts[patient]
    return fold


def _too_few(frame: pd.DataFrame, what: str) -> str:
    abnormal, unknown = int(known_abnormal(frame).sum()), int(frame["any_abnormal"].isna().sum())
    and_unknown = f" ({unknown:,} of these not known)" if unknown else ""
    return (
        f"There is too little data for {what}: {len(frame):,} images of "
        f"{frame['patient_id'].nunique():,} patients, {abnormal:,} with a listed finding and "
        f"{len(frame) - abnormal:,} without{and_unknown}."
    )


def _remedy(left_out: Mapping[str, int]) -> str:
    if left_out.get(Reason.NOT_SAMPLED):
        return f"Set data.fraction higher; where 1 is not enough: {MORE_PATIENTS}"
    remedy = MORE_PATIENTS
    counts = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items())
    return f"{remedy} The index left out: {counts}." if left_out else remedy


def _require_all_parts(frame: pd.DataFrame, method: str) -> None:
    empty = [part for part in PARTS if not (frame["split"] == part).any()]
    if empty:
        raise SplitError(
            f"The split leaves no image for {' and '.join(empty)}. "
            f"{_too_few(frame, f'split.method = {method}')}"
        )


def _write(
    frame: pd.DataFrame, leakage: dict[str, Any], excluded: pd.DataFrame, directory: Path
) -> None:
    split = frame[["image", "split"]].astype("str")
    split.to_parquet(directory / SPLIT_FILE, index=False, compression="zstd")
    (directory / LEAKAGE_FILE).write_text(json.dumps(leakage, indent=1, sort_keys=True) + "\n")
    write_ledger(excluded, directory)
