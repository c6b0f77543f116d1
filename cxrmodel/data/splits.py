"""Train, validation and test, about 70 / 15 / 15, and the check that no patient is in two."""

from __future__ import annotations

import hashlib
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
from cxrmodel.data.split_file import SplitTable, parts_in_file
from cxrmodel.errors import LeakageError, SplitError
from cxrmodel.storage.layout import (
    IMAGES_FILE,
    INDEX_FILE,
    LEAKAGE_FILE,
    NOTES_FILE,
    OK,
    SPLIT_FILE,
)

PARTS = ("train", "val", "test")
SHARES = (0.70, 0.15, 0.15)
NUM_FOLDS, NUM_TRAIN_FOLDS, NUM_VAL_FOLDS = 20, 14, 3  # the other 3 are test
UNEVEN = 0.02  # a share that chance has moved further than this is told
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
    table: SplitTable | None = None,
) -> dict[str, Any]:
    """Write split.parquet, leakage.json, notes.json and excluded.parquet.

    Args:
        config: Method and seed.
        index: Folder of the index stage.
        images: Folder of the images stage; only its `ok` images take part.
        directory: Folder to write to.
        left_out: How many images the index left out, by reason; for what an error suggests.
        table: What `split.file` says, for the method `file`.

    Returns:
        The method, num_train, num_val, num_test, and leaking_test_fraction: the share of test
        images of which the patient is in train too.

    Raises:
        SplitError: Too few patients or images, or no parts are given where they have to be.
        LeakageError: A method that keeps patients apart did not.
    """
    frame = pd.read_parquet(index / INDEX_FILE)
    status = pd.read_parquet(images / IMAGES_FILE).set_index("image")["status"]
    frame = frame[frame["image"].map(status) == OK].reset_index(drop=True)
    try:
        frame["split"] = _assign(config, frame, table)
    except TooFewError as error:
        raise TooFewError(f"{error} {_remedy(left_out or {})}") from error
    unused = frame["split"] == ""
    from_file = config.method == "file"
    reason = Reason.NOT_IN_SPLIT_FILE if from_file else Reason.NOT_IN_OFFICIAL_LISTS
    excluded = ledger(frame["image"][unused], reason, [""] * int(unused.sum()))
    frame = frame[~unused]
    _require_all_parts(frame, config)
    warn_of_losses(excluded, len(frame))
    leakage = {"method": config.method, **check_leakage(frame, allowed=config.method == "rows")}
    notes = ([table.note] if table else []) + (_uneven(frame) if config.method == "hash" else [])
    _write(frame, leakage, excluded, notes, directory)
    shown = ("method", "num_train", "num_val", "num_test", "leaking_test_fraction")
    return {name: leakage[name] for name in shown}


def _assign(config: SplitConfig, frame: pd.DataFrame, table: SplitTable | None) -> Labels:
    """Return the part of each image, empty where it has none."""
    if config.method == "file":
        if table is None:
            raise ValueError("split.method is 'file': give its table, as read_split_table does")
        return _given_parts(parts_in_file(table, frame, str(config.file)), frame, config.seed)
    methods = {"patient": _by_patient, "hash": _by_hash, "official": _official, "rows": _by_rows}
    return methods[config.method](frame, config.seed)


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
                "parts that the data set or split.file gives, or set split.method to patient."
            )
    test = frame.loc[frame["split"] == "test", "patient_id"]
    return {
        **{f"num_{part}": int((frame["split"] == part).sum()) for part in PARTS},
        **{f"num_patients_{part}": len(patients[part]) for part in PARTS},
        **{f"shared_{one}_{other}": len(both) for (one, other), both in shared.items()},
        "leaking_test_fraction": float(test.isin(patients["train"]).mean()) if len(test) else 0.0,
    }


def _by_patient(frame: pd.DataFrame, seed: int) -> Labels:
    return _parts_of_folds(_folds(frame, NUM_FOLDS, seed))


def _by_hash(frame: pd.DataFrame, seed: int) -> Labels:
    """Put each patient by nothing but seed and id: no patient moves, whoever else is there."""
    fold = {patient: _hashed_fold(patient, seed) for patient in frame["patient_id"].unique()}
    return _parts_of_folds(frame["patient_id"].map(fold).to_numpy(np.int64))


def _hashed_fold(patient: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed} {patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % NUM_FOLDS


def _parts_of_folds(fold: NDArray[np.int64]) -> Labels:
    bounds = [NUM_TRAIN_FOLDS, NUM_TRAIN_FOLDS + NUM_VAL_FOLDS]
    return np.array(PARTS)[np.searchsorted(bounds, fold, side="right")]


def _official(frame: pd.DataFrame, seed: int) -> Labels:
    return _given_parts(frame["official"], frame, seed)


def _given_parts(given: pd.Series, frame: pd.DataFrame, seed: int) -> Labels:
    """Return the given parts; of `train_val`, an eighth of the patients becomes validation."""
    words = {"train": "train", "val": "val", "train_val": "train", "test": "test"}
    labels = given.map(words).fillna("").to_numpy(dtype="<U5")
    train_val = np.flatnonzero(given == "train_val")
    if not len(train_val) or "test" not in labels:
        return labels
    try:
        fold = _folds(frame.iloc[train_val], OFFICIAL_FOLDS, seed)
    except TooFewError as error:
        raise TooFewError(f"Validation is drawn from the part train_val. {error}") from error
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


def _require_all_parts(frame: pd.DataFrame, config: SplitConfig) -> None:
    empty = [part for part in PARTS if not (frame["split"] == part).any()]
    if empty:
        raise SplitError(
            f"The split leaves no image for {' and '.join(empty)}. {_cause_of_empty(frame, config)}"
        )


def _cause_of_empty(frame: pd.DataFrame, config: SplitConfig) -> str:
    """Say why a part has no image, and what to do."""
    if config.method == "official":
        return (
            "split.method = official takes the data set's own parts, and these name no usable "
            f"image there. NIH ChestX-ray14 gives them in {TRAIN_VAL_LIST} and {TEST_LIST}: put "
            "both anywhere below data.root, beside the CSV for example. A table of your own gives "
            "them in a column `split`. Or set split.method to patient."
        )
    if config.method == "file":
        return (
            f"split.file {config.file} names no usable image there. Add some; or write train_val "
            "instead of train, of which validation is then drawn by patient."
        )
    too_few = _too_few(frame, f"split.method = {config.method}")
    if config.method == "hash":
        return (
            f"{too_few} By chance no patient falls there: use images of more patients, or set "
            f"split.method to patient, which deals {NUM_FOLDS} patients and more evenly."
        )
    return too_few


def _uneven(frame: pd.DataFrame) -> list[str]:
    """Return a warning where chance gives a part clearly more or fewer images than it should."""
    found = [float((frame["split"] == part).mean()) for part in PARTS]
    if all(abs(share - due) <= UNEVEN for share, due in zip(found, SHARES, strict=True)):
        return []
    shown = ", ".join(
        f"{100 * share:.1f} % {part}" for share, part in zip(found, PARTS, strict=True)
    )
    due = " / ".join(f"{100 * share:.0f}" for share in SHARES)
    note = (
        f"The parts are uneven: {shown} instead of {due}, since split.method = hash leaves them to "
        f"chance, and there are only {frame['patient_id'].nunique():,} patients. With more they "
        "near these shares; split.method = patient is even, but moves patients when data is added."
    )
    logger.warning("%s", note)
    return [note]


def _write(
    frame: pd.DataFrame,
    leakage: dict[str, Any],
    excluded: pd.DataFrame,
    notes: list[str],
    directory: Path,
) -> None:
    split = frame[["image", "split"]].astype("str")
    split.to_parquet(directory / SPLIT_FILE, index=False, compression="zstd")
    (directory / LEAKAGE_FILE).write_text(json.dumps(leakage, indent=1, sort_keys=True) + "\n")
    (directory / NOTES_FILE).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
    write_ledger(excluded, directory)
