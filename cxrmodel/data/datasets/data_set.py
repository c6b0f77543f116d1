"""What a data set's module says of each image, and how the values of its table are read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from cxrmodel.data.datasets.delimited import Columns, match_columns
from cxrmodel.data.label_columns import check_label_names

if TYPE_CHECKING:
    from cxrmodel.config import DataConfig

FROM_TAGS = ("patient_id", "age", "sex", "view")
LATERAL = "lateral"
# The first that names a view counts; a description may name it where no code does.
VIEW_TAGS = ("ViewPosition", "ViewCodeSequence", "SeriesDescription", "ProtocolName")

MAX_AGE_YEARS = 120
MAX_PATIENT_ID_CHARS = 64
MAX_FOLLOW_UP = 2**31 - 1

NO_PATIENT = frozenset(
    {"", "-", "--", "?", "n/a", "#n/a", "<na>", "na", "nan", "nat", "nil", "none", "null",
     "missing", "undefined", "unk", "unknown", "not available", "anon", "anonymous",
     "anonymised", "anonymized"}
)  # fmt: skip
"""What tables and tags write where a patient is not known, in lower case."""

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("trainval", "trainvalid"), "train_val"),
}
"""Names of official parts, of letters alone."""

DESCRIBED = {
    "patient_id": "str",
    "age": "Int16",
    "sex": "str",
    "view": "str",
    "follow_up": "Int32",
    "official": "str",
}
"""What is said of each image beside its name and its labels, and as which type."""

_AGE = re.compile(r"(\d{1,4})(?:\.0*)?\s*([YMWD]?)", re.IGNORECASE)
_COUNT = re.compile(r"(\d{1,10})(?:\.0*)?")
_SEEN_FROM_THE_SIDE = re.compile(
    r"(?:L|R|LT|RT|LEFT|RIGHT)?LAT(?:L|R|LT|RT|LEFT|RIGHT|ERAL|ERALE|ERALES|ERALIS)?"
    r"|LL|RL|PROFILE?|PERFIL|SEITLICH|SWIMMERS?"
)
_OBLIQUE_OR_LYING = re.compile(
    r"[LR]L[OD]|[LR][AP]O|[LR]DEC|[LR]DECUB|DECUB|DECUBITUS|OBL|OBLIQUE|OBLIQUO|OBLICUA|OBLIQUA"
)
_FRONTAL = re.compile(r"AP|PA|FRONTAL|ANTEROPOSTERIOR|POSTEROANTERIOR")
_WORD = re.compile(r"[A-Z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Entries:
    """One row per row of the tables, in their order.

    Attributes:
        rows: Columns image, patient_id (text, empty where there is nothing usable), age (Int16
            years), sex (`F`, `M`), view (`AP`, `PA`, `lateral`), follow_up (Int32), official
            (the data set's own part: `train`, `val`, `test`, or `train_val` where validation is
            to be drawn from it), any_abnormal and one column per label (Int8, 1 or 0), all null
            where unknown.
        labels: Names of the label columns, in the data set's order; none where nothing is labelled.
        reasons: Why the data set itself cannot use a row, a `Reason`; empty where it can.
        details: What was found, for the ledger.
        notes: What had to be interpreted in the tables, one sentence each.

    Raises:
        DataError: Two labels have one name, or a name cannot be that of a label.
    """

    rows: pd.DataFrame
    labels: tuple[str, ...]
    reasons: pd.Series
    details: pd.Series
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_label_names(self.labels)


@dataclass(frozen=True)
class JoinedTable:
    """A table that says more about the rows of a data set's main ones.

    Attributes:
        tables: Patterns of its file's name, the best first; case does not count.
        columns: Accepted spellings of each field; those of `on` and others than the main tables'.
        on: Fields that a row of it and the rows that it belongs to have in common.
        is_optional: Whether the data set can be read without it.
    """

    tables: tuple[str, ...]
    columns: Columns
    on: tuple[str, ...]
    is_optional: bool = False

    def matches(self, header: list[str]) -> bool:
        """Tell whether a table with this header can be it."""
        return set(self.columns) <= set(match_columns(header, self.columns))


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Where images come from, and what names them.

    Attributes:
        name: Value of `data.dataset`.
        title: What people call it.
        url: Where it comes from; empty where that is not known.
        citation: What to cite, in Markdown; empty likewise.
        name_parts: How many of the last parts of a file's path name an image.
        ending_counts: Whether the ending of a file belongs to the name of its image; otherwise
            copies in another format have the same names.
        images_of: Data sets that the images were taken from.
        mined: Whether the labels were mined from the text of radiology reports.
    """

    name: str
    title: str
    url: str
    citation: str
    name_parts: int = 1
    ending_counts: bool = True
    images_of: tuple[str, ...] = ()
    mined: bool = False

    @property
    def title_within(self) -> str:
        """The title within a sentence."""
        return f"a {self.title[2:]}" if self.title.startswith("A ") else self.title


@dataclass(frozen=True, kw_only=True)
class DataSet(ImageSet):
    """How one data set's tables are recognised, read, and joined to its files.

    Attributes:
        tables: Patterns of its tables' file names, one per table; case does not count.
        names_suffice: Whether such a name is enough; otherwise the columns must fit as well.
        columns: Accepted spellings of each field.
        required: Fields that make a table one of this data set.
        read: Makes entries of the text of `columns`, and of those of `joined`, empty where a table
            lacks one.
        joined: Tables with more about the same images.
    """

    tables: tuple[str, ...]
    names_suffice: bool
    columns: Columns
    required: tuple[str, ...]
    read: Callable[[pd.DataFrame, DataConfig], Entries]
    joined: tuple[JoinedTable, ...] = ()

    def required_of(self, only_dicom: bool) -> list[str]:
        """Return the fields that a table must have; a DICOM file's tags may name the patient."""
        return [each for each in self.required if not (only_dicom and each in FROM_TAGS)]

    def matches(self, header: list[str], only_dicom: bool) -> bool:
        """Tell whether a table with this header is of this data set."""
        return set(self.required_of(only_dicom)) <= set(match_columns(header, self.columns))


def described(image: pd.Series, **known: pd.Series) -> pd.DataFrame:
    """Return the columns of `Entries.rows` before the labels, null where nothing is known.

    Args:
        image: Name of each image.
        known: Any of patient_id, age, sex, view, follow_up and official.
    """
    unknown = {"patient_id": ""}
    return pd.DataFrame(
        {
            "image": image,
            **{
                name: pd.Series(known.get(name, unknown.get(name)), image.index, dtype=dtype)
                for name, dtype in DESCRIBED.items()
            },
        }
    )


def converted(texts: pd.Series, parse: Callable[[str], object]) -> pd.Series:
    """Return each text's value; a distinct text is parsed once."""
    numbers, distinct = pd.factorize(texts, use_na_sentinel=False)
    values = pd.Series([parse(str(text)) for text in distinct])
    return values.take(numbers).set_axis(texts.index)


def parse_patient_id(text: str) -> str:
    """Return the patient's id, empty where it is not usable.

    `00012`, `12` and `12.0` are one patient, as are two Unicode forms of an accent: a table that
    went through a spreadsheet must not turn one patient into two, one in train and one in test.
    Images whose patient is `unknown` must not become one patient either: see `NO_PATIENT`.
    """
    text = unicodedata.normalize("NFC", text.strip())
    if _CONTROL.search(text) or len(text) > MAX_PATIENT_ID_CHARS:
        return ""
    if " ".join(text.split()).casefold() in NO_PATIENT:
        return ""
    number = re.fullmatch(r"0*([0-9]+)(?:\.0*)?", text)
    return number.group(1) if number else text


def parse_age(text: str) -> int | None:
    """Return an age in whole years from `58`, `058Y` or `011M`; None where absent or absurd."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = int(match.group(1)), match.group(2).upper()
    years = number // {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}[unit]
    return years if years <= MAX_AGE_YEARS else None


def parse_sex(text: str) -> str | None:
    """Return `F` or `M`; None for anything else."""
    return {"f": "F", "female": "F", "m": "M", "male": "M"}.get(text.strip().casefold())


def parse_view(text: str) -> str | None:
    """Return `AP`, `PA` or `lateral`; None for anything else.

    `lateral` is whatever is not frontal: seen from the side (`LL`, `L`, `LATERAL`, `LAT R`),
    obliquely (`LLO`, `RAO`) or lying on the side (`LLD`, `AP LLD`). A text that names both, as
    `PA and lateral` does for a pair of images, says nothing about one of them.
    """
    view = text.strip().upper()
    words = _WORD.findall(view)
    if view in ("AP", "PA"):
        return view
    if view == "L" or any(_OBLIQUE_OR_LYING.fullmatch(word) for word in words):
        return LATERAL
    is_lateral = any(_SEEN_FROM_THE_SIDE.fullmatch(word) for word in words)
    return LATERAL if is_lateral and not any(map(_FRONTAL.fullmatch, words)) else None


def stated_view(tags: Mapping[str, str]) -> str:
    """Return the view that a DICOM file's tags state: `AP`, `PA`, `lateral` or empty."""
    views = (parse_view(tags.get(tag, "")) for tag in VIEW_TAGS)
    return next(filter(None, views), "")


def parse_part(text: str) -> str | None:
    """Return `train`, `val`, `test` or `train_val` for a part's usual names; None for others."""
    return PARTS.get(re.sub(r"[^a-z]", "", text.casefold()))


def parse_follow_up(text: str) -> int | None:
    """Return the number of the follow-up; None where absent."""
    match = _COUNT.fullmatch(text.strip())
    number = int(match.group(1)) if match else MAX_FOLLOW_UP + 1
    return number if number <= MAX_FOLLOW_UP else None
