"""The 14 pathologies of ChestX-ray14, and how the text of a row names them."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.ledger import Reason

logger = logging.getLogger(__name__)

PATHOLOGIES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""Named and ordered as the data set has them; its columns in an index."""

NO_FINDING = "No Finding"
SEPARATOR = "|"
SHOWN_CHARS = 80


@dataclass(frozen=True)
class LabelSet:
    """What one row's label text says.

    Attributes:
        findings: Names out of `PATHOLOGIES`, empty for `No Finding` and where there is a reason.
        reason: Why the row cannot be used; None where it can.
        detail: The offending text.
        is_respelled: Whether its labels are joined by something other than `|`.
    """

    findings: frozenset[str]
    reason: Reason | None = None
    detail: str = ""
    is_respelled: bool = False


def _canonical(label: str) -> str:
    return " ".join(label.replace("_", " ").split()).casefold()


_BY_CANONICAL = {_canonical(name): name for name in (*PATHOLOGIES, NO_FINDING)}

# Characters that only ever join labels, as in `A;B`, `A, B` or `['A', 'B']`. A slash may mean `or`
# and a question mark doubt, so those are not read.
_NAME = "|".join(map(re.escape, _BY_CANONICAL))
_NAMES = re.compile(rf"\b(?:{_NAME})\b")
_JOIN = r"[\s|;,+&\[\]'\"]"
_LIST = re.compile(rf"{_JOIN}*(?:{_NAME})(?:{_JOIN}+(?:{_NAME}))*{_JOIN}*")


def pathology_named(text: str) -> str | None:
    """Return the pathology of that name in any spelling; None where it is not one of the 14."""
    name = _BY_CANONICAL.get(_canonical(text))
    return None if name == NO_FINDING else name


def parse_labels(text: str) -> LabelSet:
    """Read one row's labels, such as `Mass|Pleural Thickening`.

    Case does not matter, and spaces and underscores are equal. A text that consists of known
    labels and of characters that can only join them, such as `Mass; Hernia`, is read as well.
    """
    parts = [part.strip() for part in text.split(SEPARATOR) if part.strip()]
    if not parts:
        return LabelSet(frozenset(), Reason.EMPTY_LABELS)
    unknown = [part for part in parts if _canonical(part) not in _BY_CANONICAL]
    if unknown and not _LIST.fullmatch(_canonical(text)):
        return LabelSet(frozenset(), Reason.UNKNOWN_LABEL, SEPARATOR.join(unknown))
    found = _NAMES.findall(_canonical(text)) if unknown else map(_canonical, parts)
    names = frozenset(_BY_CANONICAL[name] for name in found)
    if NO_FINDING in names and len(names) > 1:
        return LabelSet(frozenset(), Reason.CONTRADICTORY_LABELS, text)
    return LabelSet(names - {NO_FINDING}, is_respelled=bool(unknown))


def label_matrix(texts: pd.Series) -> tuple[NDArray[np.uint8], pd.Series, pd.Series]:
    """Read the labels of many rows; each distinct text is parsed once.

    Args:
        texts: (N,) label texts.

    Returns:
        (N, 14) uint8 of 0 and 1 in the order of `PATHOLOGIES`, and the reason (empty text where
        the row is usable) and detail of each row.
    """
    codes, distinct = pd.factorize(texts)
    sets = [parse_labels(str(text)) for text in distinct]
    hot = np.array([[name in each.findings for name in PATHOLOGIES] for each in sets], np.uint8)
    respelled = np.flatnonzero([each.is_respelled for each in sets])
    if len(respelled):
        logger.warning(
            "%d rows join their labels by other characters than %s, as in %r, and are read so",
            np.isin(codes, respelled).sum(),
            SEPARATOR,
            str(distinct[respelled[0]])[:SHOWN_CHARS],
        )
    reasons = np.array([str(each.reason or "") for each in sets], dtype=object)
    details = np.array([each.detail for each in sets], dtype=object)
    return (
        hot.reshape(-1, len(PATHOLOGIES))[codes],
        pd.Series(reasons[codes], index=texts.index, dtype="str"),
        pd.Series(details[codes], index=texts.index, dtype="str"),
    )
