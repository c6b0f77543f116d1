"""The index of MIMIC-CXR-JPG at its real size, three joined tables, beside that of NIH, one table.

The files are sparse. Names, tables and folders are made up in the data set's exact layout.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data_plane import SIZES, make_root, measured_apart
from cxrmodel.data.datasets.observations import OBSERVATIONS

NUM_IMAGES, NUM_STUDIES, NUM_PATIENTS = 377_110, 227_835, 65_379
FIRST_PATIENT, FIRST_STUDY = 10_000_032, 50_000_014
FILE_BYTES = 1_600_000
SHARES = [0.03, 0.02, 0.07, 0.88]  # of 1, -1, 0 and blank


def measure_joined_tables(work: Path, csv_path: Path | None = None) -> dict[str, Any]:
    """Time the stages before decoding on both layouts, each in a process of its own.

    Args:
        work: Empty folder; the files take little room there.
        csv_path: NIH's `Data_Entry_2017_v2020.csv`, if it is available.

    Returns:
        By layout, as of `measure_data_plane`; and microseconds per image of the scan, which lists
        the folders (NIH has 12, MIMIC-CXR-JPG a folder per study), and of the index, which joins
        the tables with the files.
    """
    roots = {
        "NIH, one table": (make_root(work / "nih", SIZES[-1], csv_path), SIZES[-1]),
        "MIMIC-CXR-JPG, three tables": (make_mimic_root(work / "mimic"), NUM_IMAGES),
    }
    results = {}
    for name, (root, size) in roots.items():
        found = measured_apart(root, work / f"{root.name}-made")
        per_row = {
            f"{stage}_us_per_row": round(1e6 * found[f"{stage}_s"] / size, 1)
            for stage in ("scan", "index")
        }
        results[name] = {"images": size, **found, **per_row}
    return results


def make_mimic_root(root: Path, num_images: int = NUM_IMAGES) -> Path:
    """Make MIMIC-CXR-JPG's folders with sparse files, and its tables beside them."""
    table = _metadata(num_images)
    folders = (
        "files/p" + table["subject_id"].astype(str).str[:2]
        + "/p" + table["subject_id"].astype(str)
        + "/s" + table["study_id"].astype(str)
    )  # fmt: skip
    for folder in folders.unique():
        (root / folder).mkdir(parents=True)
    for folder, name in zip(folders, table["dicom_id"], strict=True):
        with (root / folder / f"{name}.jpg").open("wb") as stream:
            stream.truncate(FILE_BYTES)
    parts = table[["dicom_id", "study_id", "subject_id"]].assign(split="train")
    _write(table, root / "mimic-cxr-2.0.0-metadata.csv.gz")
    _write(_labels(table), root / "mimic-cxr-2.0.0-chexpert.csv.gz")
    _write(parts, root / "mimic-cxr-2.0.0-split.csv.gz")
    return root


def _metadata(num_images: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    num_studies = max(1, num_images * NUM_STUDIES // NUM_IMAGES)
    num_patients = max(1, num_images * NUM_PATIENTS // NUM_IMAGES)
    patient_of = np.sort(rng.integers(num_patients, size=num_studies))
    study = np.sort(rng.integers(num_studies, size=num_images))
    return pd.DataFrame(
        {
            "dicom_id": [_name(number) for number in range(num_images)],
            "subject_id": FIRST_PATIENT + patient_of[study],
            "study_id": FIRST_STUDY + study,
            "PerformedProcedureStepDescription": "CHEST (PA AND LAT)",
            "ViewPosition": rng.choice(["PA", "AP", "LATERAL", "LL", ""], num_images),
            "Rows": 3056,
            "Columns": 2544,
            "StudyDate": rng.integers(21_100_101, 22_091_231, num_images),
            "StudyTime": 213_014.531,
            "ProcedureCodeSequence_CodeMeaning": "CHEST (PA AND LAT)",
            "ViewCodeSequence_CodeMeaning": "postero-anterior",
            "PatientOrientationCodeSequence_CodeMeaning": "Erect",
        }
    )


def _name(number: int) -> str:
    digits = hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digits[at : at + 8] for at in range(0, 40, 8))


def _labels(table: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    studies = table[["subject_id", "study_id"]].drop_duplicates(ignore_index=True)
    marks = rng.choice(["1.0", "-1.0", "0.0", ""], (len(studies), len(OBSERVATIONS)), p=SHARES)
    return pd.concat([studies, pd.DataFrame(marks, columns=list(OBSERVATIONS))], axis=1)


def _write(table: pd.DataFrame, path: Path) -> None:
    path.write_bytes(gzip.compress(table.to_csv(index=False).encode(), compresslevel=1))
