"""The labels of any table: columns of yes and no, or one column with the names of findings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.data_set import converted
from cxrmodel.data.datasets.delimited import column_list, match_columns
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
    """Read the labels, from the given columns or from those that look like labels."""
    given = match_columns([str(column) for column in texts], {x: (x,) for x in config.columns.labels})
    columns = [str(texts.columns[at]) for at in given.values()]
    used = {column for field, column in fields.items() if field != "names"}
    marked = [str(x) for x in texts if str(x) not in used and _is_marked(texts[x])]
    if len(columns) == 1 and columns[0] not in marked:
        return _from_names(texts[columns[0]], columns[0], config.columns.separator, name)
    if not columns and "names" in fields and len(marked) < 2:  # noqa: PLR2004 - one may be a flag
        if fields["names"] not in marked:
            return _from_names(texts[fields["names"]], fields["names"], config.columns.separator, name)
    no_finding = next((x for x in marked if x.strip().casefold() in NO_FINDING), None)
    columns = columns or [x for x in marked if x not in RESERVED]
    return _from_marks(texts, [x for x in columns if x != no_finding], no_finding, config)


def _is_marked(column: pd.Series) -> bool:
    """Tell whether a column holds nothing but yes and no, with at least one yes."""
    values = set(converted(column, _mark).unique())
    return values <= {1, 0, -1, BLANK} and 1 in values


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
    said = f"{len(columns)} labels from the columns {shown}" if columns else "without labels"
    return Findings(labels, reasons, details.str.strip(), said)


def _from_names(texts: pd.Series, column: str, separator: str, name: str) -> Findings:
    separator = separator or next((x for x in SEPARATORS if texts.str.contains(x, regex=False).any()), "")
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
    return Findings(frame, reasons, texts.where(is_odd, ""), said)


def _names_in(text: str, separator: str) -> list[str]:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].replace("'", "").replace('"', "")
    parts = text.split(separator) if separator else [text]
    names = [" ".join(part.split()) for part in parts]
    return [each for each in names if each.casefold() not in UNLABELLED]
