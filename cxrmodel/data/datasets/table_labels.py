"""The labels of any table: columns of yes and no, or one column with the names of findings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import converted
from cxrmodel.data.datasets.delimited import Columns, column_list, match_columns
from cxrmodel.data.label_columns import LABEL_DTYPE, RESERVED
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import DataError

UNLABELLED = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>", "unknown", "not labelled"})
BLANK, UNKNOWN = -2, -3
MARKS: Mapping[int, frozenset[str]] = {
    1: frozenset({"1", "true", "yes", "y", "positive", "pos", "present"}),
    0: frozenset({"0", "false", "no", "n", "negative", "neg", "absent"}),
    -1: frozenset({"-1", "uncertain"}),
    BLANK: UNLABELLED,
}
"""What a cell of a label's column may say: 1 found, 0 not found, -1 uncertain, or nothing."""

NO_FINDING = frozenset({"no finding", "no findings", "normal", "healthy", "no abnormality"})

NOT_LABELS: Columns = {
    "other": (
        "follow up", "follow up number", "visit", "visit number", "index", "unnamed 0", "row",
        "row number", "number", "count", "male", "female", "is male", "is female", "frontal",
        "lateral", "is frontal", "is lateral", "ap", "pa", "portable", "train", "val", "valid",
        "validation", "test", "is train", "is val", "is valid", "is validation", "is test",
    )
}  # fmt: skip
"""Names of columns that say something else of an image: these are labels only where told so."""

SEPARATORS = ("|", ";", ",")
MAX_NAMES = 200
SHOWN_NAMES = 12

_POINT_ZERO = re.compile(r"\.0*$")


@dataclass(frozen=True)
class Findings:
    """The labels of each row.

    Attributes:
        labels: (N, K) Int8, a column per label.
        reasons: Why a row cannot be used, a `Reason`; empty where it can.
        details: What was found, for the ledger.
        said: Which columns they come from.
    """

    labels: pd.DataFrame
    reasons: pd.Series
    details: pd.Series
    said: str


def read_findings(
    texts: pd.DataFrame, fields: Mapping[str, str], config: DataConfig, name: str
) -> Findings:
    """Read the labels, from the given columns or from those that look like labels.

    Args:
        texts: All columns of the table.
        fields: Column of each other field, and `names` where one may hold names of findings.
        config: The given columns, and what uncertain labels become.
        name: What to call the table in an error.

    Raises:
        DataError: A column of names holds too many different ones.
    """
    header = [str(column) for column in texts]
    given = match_columns(header, {each: (each,) for each in config.columns.labels})
    columns = [header[at] for at in given.values()]
    used = {column for field, column in fields.items() if field != "names"}
    marks = {each: set(converted(texts[each], _mark)) for each in header if each not in used}
    marked = [each for each, found in marks.items() if UNKNOWN not in found]
    found = [each for each in marked if 1 in marks[each]]
    guessed = [each for each in found if not match_columns([each], NOT_LABELS)]
    of_names = columns if len(columns) == 1 else []
    if (
        not columns and len(guessed) <= 1
    ):  # a column of names beside a single flag, such as `smoker`
        of_names = [fields["names"]] if "names" in fields else []
    if of_names and of_names[0] not in marked:
        return _from_names(texts[of_names[0]], of_names[0], config.columns.separator, name)
    no_finding = next((each for each in marked if each.casefold() in NO_FINDING), None)
    others = [] if columns else [each for each in found if each not in guessed]
    never = [] if columns else [x for x in marked if marks[x] == {0} and x != no_finding]
    columns = columns or [each for each in guessed if each not in RESERVED]
    labels = [each for each in columns if each != no_finding]
    findings = _from_marks(texts, labels, no_finding, config)
    reasons = {"by the name": others, "where nothing is found": never}
    left_out = [
        f"not from {column_list(those, SHOWN_NAMES)}, {why}"
        for why, those in reasons.items()
        if those
    ]
    said = f"{findings.said} ({'; '.join(left_out)})" if left_out else findings.said
    return replace(findings, said=said)


def _mark(text: str) -> int:
    text = _POINT_ZERO.sub("", text.strip().casefold())
    for value, words in MARKS.items():
        if text in words:
            return value
    return UNKNOWN


def _from_marks(
    texts: pd.DataFrame, columns: list[str], no_finding: str | None, config: DataConfig
) -> Findings:
    marks = pd.DataFrame(
        {each: converted(texts[each], _mark).astype("int8") for each in columns}, texts.index
    )
    uncertain = {"negative": 0, "positive": 1}.get(config.uncertain)
    labels = marks.astype(LABEL_DTYPE).mask(marks.isin((BLANK, UNKNOWN)))
    labels = labels.mask(marks == -1, uncertain)
    reasons = pd.Series("", texts.index, dtype="str")
    if no_finding is not None:
        is_clear = converted(texts[no_finding], _mark) == 1
        labels = labels.mask(labels.isna() & is_clear.to_numpy()[:, None], 0)
        reasons[is_clear & (labels == 1).any(axis=1)] = str(Reason.CONTRADICTORY_LABELS)
    if config.uncertain == "exclude":
        reasons[(marks == -1).any(axis=1)] = str(Reason.UNCERTAIN_LABEL)
    odd = marks == UNKNOWN
    reasons[odd.any(axis=1)] = str(Reason.UNKNOWN_LABEL)
    details = pd.Series("", texts.index, dtype="str")
    for each in columns:
        details[odd[each]] += each + " " + texts[each][odd[each]] + " "
    shown = column_list(columns, SHOWN_NAMES)
    noun = "column" if len(columns) == 1 else "columns"
    said = f"labels from the {noun} {shown}" if columns else "no labels"
    return Findings(labels, reasons, details.str.strip(), said)


def _from_names(texts: pd.Series, column: str, separator: str, name: str) -> Findings:
    separator = separator or next(
        (x for x in SEPARATORS if texts.str.contains(x, regex=False).any()), ""
    )
    distinct = {text: _names_in(str(text), separator) for text in texts.unique()}
    known: dict[str, str] = {}
    for names in distinct.values():
        for each in names:
            known.setdefault(each.casefold(), each)
    labels = sorted(each for key, each in known.items() if key not in NO_FINDING)
    if len(labels) > MAX_NAMES:
        raise DataError(
            f"The column {column!r} of {name} holds {len(labels):,} different names of findings, "
            f"such as {labels[0][:40]!r}: it may be free text. Set data.columns.labels to the "
            "columns of labels, and data.columns.separator to what stands between names."
        )
    folded = {text: {each.casefold() for each in names} for text, names in distinct.items()}
    hot = {
        each: texts.map({t: (each.casefold() in f if f else None) for t, f in folded.items()})
        for each in labels
    }
    frame = pd.DataFrame(hot, texts.index, dtype=object).astype(LABEL_DTYPE)
    contradictory = {t: bool(f & NO_FINDING) and not f <= NO_FINDING for t, f in folded.items()}
    is_odd = texts.map(contradictory).astype(bool)
    reasons = pd.Series("", texts.index, dtype="str").mask(is_odd, str(Reason.CONTRADICTORY_LABELS))
    between = f"with {separator!r} between them" if separator else "one in each row"
    said = f"{len(labels)} labels from the names in {column!r}, {between}"
    num_unlabelled = int(texts.map({text: not names for text, names in folded.items()}).sum())
    if num_unlabelled and labels:
        said += (
            f"; {num_unlabelled:,} of {len(texts):,} rows have no name there and count as not "
            "labelled, where `No Finding` would say that nothing was found"
        )
    return Findings(frame, reasons, texts.where(is_odd, ""), said)


def _names_in(text: str, separator: str) -> list[str]:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].replace("'", "").replace('"', "")
    parts = text.split(separator) if separator else [text]
    names = [" ".join(part.split()) for part in parts]
    return [each for each in names if each.casefold() not in UNLABELLED]
