"""Any table of images, or a folder of images without one.

The columns are those of `data.columns`; what is not given there is guessed from the usual spellings
and said in a note. A label is a column of 1, 0 or nothing, or a name in one column of names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cxrmodel.config import ColumnsConfig, DataConfig
from cxrmodel.data.datasets.data_set import (
    Entries,
    ImageSet,
    converted,
    described,
    parse_age,
    parse_part,
    parse_patient_id,
    parse_sex,
    parse_view,
)
from cxrmodel.data.datasets.delimited import (
    HEAD_BYTES,
    Columns,
    column_list,
    header_of,
    match_columns,
    read_columns,
)
from cxrmodel.data.datasets.joins import is_dicom_name
from cxrmodel.data.datasets.name_rules import quoted
from cxrmodel.data.datasets.table_labels import read_findings
from cxrmodel.data.files.listing import IMAGE_SUFFIXES
from cxrmodel.data.label_columns import ANY_ABNORMAL, LABEL_DTYPE, any_abnormal
from cxrmodel.errors import DataError
from cxrmodel.settings import did_you_mean

GUESSES: Columns = {
    "image": (
        "image", "image index", "image id", "image name", "image path", "image file", "filename",
        "file name", "file", "filepath", "file path", "path", "img", "img name", "img path",
        "dicom id", "dicom", "png path", "jpg path", "sop instance uid", "name", "id",
    ),
    "patient_id": (
        "patient id", "patient", "subject id", "subject", "patient number", "patient no", "case id",
        "person id", "pid", "mrn",
    ),
    "view": ("view", "view position", "projection", "ap pa", "position"),
    "sex": ("sex", "gender", "patient sex", "patient gender"),
    "age": ("age", "patient age", "age years", "age in years"),
    "part": ("split", "official split", "partition", "fold", "set", "subset"),
    "names": (
        "labels", "label", "finding labels", "finding label", "findings", "finding", "diagnosis",
        "diagnoses", "pathology", "pathologies", "disease", "diseases", "class", "classes",
    ),
}  # fmt: skip
"""Usual spellings; case, blanks and punctuation do not count."""

SAID = {
    "image": "image",
    "patient_id": "patient",
    "view": "view",
    "sex": "sex",
    "age": "age",
    "part": "official part",
    "names": "names of findings",
}

READABLE = {
    "view": "AP, PA and the usual names of lateral views",
    "sex": "F and M, or female and male",
    "age": "whole years such as 58, or 058Y and 011M as DICOM writes them",
}
NUM_EXAMPLES = 3
NUM_LOOKED_AT = 1000
MAX_PARTS = 8

_ENDING = re.compile(r"\.(?:png|jpe?g|dcm|dicom)$", re.IGNORECASE)

logger = logging.getLogger(__name__)


def has_image_column(head: bytes, columns: ColumnsConfig) -> bool:
    """Tell whether a table has a column that names images, by the settings or a usual name."""
    return "image" in _positions(_header(head, columns), columns)


def describe_guess(head: bytes, columns: ColumnsConfig) -> str:
    """Return how a table would be read, and which settings say otherwise."""
    header = _header(head, columns)
    found = _positions(header, columns)
    if "image" not in found:
        return (
            "and data.columns.image to the column that names the image's file (see also "
            "data.columns.patient_id and data.columns.labels)."
        )
    return (
        f"it is then read as {_said({field: header[at] for field, at in found.items()})}; "
        "data.columns.image, data.columns.patient_id and data.columns.labels say otherwise."
    )


def read_any_table(
    content: bytes, name: str, config: DataConfig, uris: Sequence[str]
) -> tuple[ImageSet, Entries]:
    """Read a table by the columns that the settings name, or by those with usual names.

    Args:
        content: The whole file.
        name: What to call it in an error or a log.
        config: Its columns, and what uncertain labels become.
        uris: Paths of the images.

    Raises:
        DataError: A given column is not there, none names images, nothing says whose image it is,
            or the labels cannot be read.
    """
    texts, notes = _all_columns(content, config.columns, name)
    fields = _fields(texts, config.columns, uris, name)
    if "patient_id" not in fields:
        _require_patients(config, uris, f"No column of {name} says")
    findings = read_findings(texts, fields, config, name)
    images = _relative(texts[fields["image"]])
    num_parts = _num_parts(images, uris)
    absent = pd.Series("", texts.index, dtype="str")
    values = {field: texts[fields[field]] if field in fields else absent for field in GUESSES}
    rows = described(
        images.str.rsplit("/", n=num_parts).str[-num_parts:].str.join("/"),
        patient_id=converted(values["patient_id"], parse_patient_id),
        age=converted(values["age"], parse_age),
        sex=converted(values["sex"], parse_sex),
        view=converted(values["view"], parse_view),
        official=converted(values["part"], parse_part),
    )
    file = name.rsplit("/", 1)[-1]  # without its folder, which must not change the output
    guessed = [field for field in fields if not getattr(config.columns, field, "")]
    note = (
        f"{file} is read as {_said(fields)}, and {findings.said}. The settings data.columns say "
        "otherwise where that is wrong."
    )
    if guessed or not config.columns.labels:
        notes.append(note)
        logger.info("%s", note)
    for field in ("view", "sex", "age"):
        if values[field].ne("").any() and rows[field].isna().all():
            notes.append(_unread(file, field, fields[field], values[field]))
            logger.warning("%s", notes[-1])
    labels = findings.labels
    rows = pd.concat([rows, any_abnormal(labels), labels], axis=1)
    names = tuple(map(str, labels.columns))
    entries = Entries(rows, names, findings.reasons, findings.details, tuple(notes))
    has_endings = images.str.casefold().str.endswith(IMAGE_SUFFIXES).any()
    data_set = replace(ANY_TABLE, name_parts=num_parts, ending_counts=bool(has_endings))
    return data_set, entries


def list_images(uris: Sequence[str], config: DataConfig) -> tuple[ImageSet, Entries]:
    """Return images without a table: nothing is known of them but what DICOM tags may say.

    Args:
        uris: Their paths.
        config: How to know the patient.

    Raises:
        DataError: Nothing says whose image it is.
    """
    _require_patients(config, uris, "There is no table, and so nothing says")
    paths = _relative(pd.Series(list(uris), dtype="str"))
    names, num_parts = paths, int(paths.str.count("/").max()) + 1
    for count in range(1, num_parts):
        names = paths.str.rsplit("/", n=count).str[-count:].str.join("/")
        if names.is_unique:
            num_parts = count
            break
    else:
        names = paths
    unknown = pd.Series(None, index=paths.index, dtype=LABEL_DTYPE)
    rows = described(names).assign(**{ANY_ABNORMAL: unknown})
    usable = pd.Series("", index=paths.index, dtype="str")
    note = "There is no table: the images have no labels."
    logger.warning("%s", note)
    return replace(ANY_TABLE, name_parts=num_parts), Entries(rows, (), usable, usable, (note,))


def _unread(file: str, field: str, column: str, texts: pd.Series) -> str:
    examples = column_list(texts[texts != ""].unique().tolist(), NUM_EXAMPLES)
    return (
        f"Nothing in the column {column!r} of {file} can be read as {field} (it says {examples}), "
        f"so the {field} counts as unknown. Accepted are {READABLE[field]}."
    )


def _require_patients(config: DataConfig, uris: Sequence[str], problem: str) -> None:
    """Refuse images of nobody: unless a rule or DICOM tags say it, a column has to."""
    if not config.patient_from and not any(map(is_dicom_name, uris)):
        raise DataError(
            f"{problem} which patient an image is of. Set data.columns.patient_id to the column "
            "that does, or data.patient_from to a regular expression that finds the patient in an "
            f"image's path (the first is {quoted(uris[0])}), or to `image` if each image is of "
            "another patient."
        )


def _given(columns: ColumnsConfig) -> dict[str, str]:
    """Return the fields whose column the settings name."""
    return {field: name for field in GUESSES if (name := getattr(columns, field, ""))}


def _header(content: bytes, columns: ColumnsConfig) -> list[str]:
    names = [*_given(columns).values(), *columns.labels]
    return header_of(content, {**GUESSES, **{f"given {each}": (each,) for each in names}})


def _positions(header: list[str], columns: ColumnsConfig) -> dict[str, int]:
    """Return the position of each field's column: the given one, or one with a usual name."""
    given = {field: (name,) for field, name in _given(columns).items()}
    taken = set(match_columns(header, {name: (name,) for name in columns.labels}).values())
    found: dict[str, int] = match_columns(header, given)
    for field, position in match_columns(header, GUESSES).items():
        if field not in given and position not in {*found.values(), *taken}:
            found[field] = position
    return {field: found[field] for field in GUESSES if field in found}


def _all_columns(
    content: bytes, columns: ColumnsConfig, name: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return all columns of a table as text, by their names, and notes."""
    header = _header(content[:HEAD_BYTES], columns)
    named = {each: (each,) for each in header if any(map(str.isalnum, each))}
    for field, given in (*_given(columns).items(), *(("labels", x) for x in columns.labels)):
        if not match_columns(header, {field: (given,)}):
            raise DataError(
                f"data.columns.{field} names {given!r}, and {name} has no such column"
                f"{did_you_mean(given, header)} Its columns: {column_list(header)}."
            )
    return read_columns(content, named, (), name)


def _fields(
    texts: pd.DataFrame, columns: ColumnsConfig, uris: Sequence[str], name: str
) -> dict[str, str]:
    """Return the name of the column of each field that the table has."""
    header = [str(column) for column in texts]
    fields = {field: header[at] for field, at in _positions(header, columns).items()}
    stems = set(_stems(pd.Series(list(uris), dtype="str")))

    def share_of_files(column: str) -> float:
        return float(_stems(texts[column].iloc[:NUM_LOOKED_AT]).isin(stems).mean())

    is_given = bool(columns.image)
    others = [each for each in header if each not in fields.values()]
    if not is_given and len(texts) and others:
        best = max(others, key=share_of_files)
        if share_of_files(best) > (share_of_files(fields["image"]) if "image" in fields else 0):
            fields["image"] = best
    if "image" not in fields:
        raise DataError(
            f"No column of {name} names an image, by its own name or by those of the files. Set "
            f"data.columns.image to the column that does. Its columns: {column_list(header)}."
        )
    return {field: fields[field] for field in GUESSES if field in fields}


def _said(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{SAID[field]} {column!r}" for field, column in fields.items())


def _relative(paths: pd.Series) -> pd.Series:
    r"""Return paths with `/` between their parts, and without what only leads to the root."""
    return paths.str.replace("\\", "/").str.replace(r"^(?:\./|/)+", "", regex=True)


def _stems(paths: pd.Series) -> pd.Series:
    names = _relative(paths).str.rsplit("/", n=1).str[-1].str.casefold()
    return names.str.replace(_ENDING, "", regex=True)


def _num_parts(images: pd.Series, uris: Sequence[str]) -> int:
    """Return how many of the last parts of a path name an image: as many as files agree on."""
    files = _relative(pd.Series(list(uris), dtype="str"))
    deepest = int(images.str.count("/").max() if len(images) else 0) + 1

    def num_met(count: int) -> int:
        keys = [
            set(
                each.str.rsplit("/", n=count)
                .str[-count:]
                .str.join("/")
                .str.replace(_ENDING, "", regex=True)
            )
            for each in (images, files)
        ]
        return len(keys[0] & keys[1])

    met = {count: num_met(count) for count in range(1, min(deepest, MAX_PARTS) + 1)}
    return max(met, key=lambda count: (met[count], count))


ANY_TABLE = ImageSet(name="table", title="A table of your own", url="", citation="")
