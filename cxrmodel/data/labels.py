"""How a row's text names its pathologies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.ledger import Reason
from cxrmodel.data.pathologies import PATHOLOGIES

NO_FINDING = "No Finding"
SEPARATOR = "|"


@dataclass(frozen=True)
class LabelSet:
    """What one row's label text says.

    Attributes:
        findings: Names out of `PATHOLOGIES`, empty for `No Finding` and where there is a reason.
        reason: Why the row cannot be used; None where it can.
        detail: The offending text.
    """

    findings: frozenset[str]
    reason: Reason | None = None
    detail: str = ""


def _canonical(label: str) -> str:
    return " ".join(label.replace("_", " ").split()).casefold()


_BY_CANONICAL = {_canonical(name): name for name in (*PATHOLOGIES, NO_FINDING)}


def pathology_named(text: str) -> str | None:
    """Return the pathology of that name in any spelling; None where it is not one of the 14."""
    name = _BY_CANONICAL.get(_canonical(text))
    return None if name == NO_FINDING else name


def parse_labels(text: str) -> LabelSet:
    """Read one row's labels, such as `Mass|Pleural Thickening`.

    Case does not matter, and spaces and underscores are equal.
    """
    parts = [part.strip() for part in text.split(SEPARATOR) if part.strip()]
    if not parts:
        return LabelSet(frozenset(), Reason.EMPTY_LABELS)
    unknown = [part for part in parts if _canonical(part) not in _BY_CANONICAL]
    if unknown:
        return LabelSet(frozenset(), Reason.UNKNOWN_LABEL, SEPARATOR.join(unknown))
    names = frozenset(_BY_CANONICAL[_canonical(part)] for part in parts)
    if NO_FINDING in names and len(names) > 1:
        return LabelSet(frozenset(), Reason.CONTRADICTORY_LABELS, text)
    return LabelSet(names - {NO_FINDING})


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
    reasons = np.array([str(each.reason or "") for each in sets], dtype=object)
    details = np.array([each.detail for each in sets], dtype=object)
    return (
        hot.reshape(-1, len(PATHOLOGIES))[codes],
        pd.Series(reasons[codes], index=texts.index, dtype="str"),
        pd.Series(details[codes], index=texts.index, dtype="str"),
    )
