"""What became of each row of the memory map: a record a row, of fixed length."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.images.reader import DETAIL_BYTES, Decoded
from cxrmodel.data.ledger import Reason
from cxrmodel.storage.layout import OK

FORMAT_VERSION = 2  # of what follows and of the pixels beside it

PENDING = ""
STATUSES = (
    PENDING,
    OK,
    str(Reason.DAMAGED_IMAGE),
    str(Reason.TOO_LARGE),
    str(Reason.UNSUPPORTED_IMAGE),
    str(Reason.UNREADABLE),
    str(Reason.REPLACED),
    str(Reason.LOW_CONTRAST),
)
"""Statuses in the order of their codes: append, never insert."""

# What another try may find otherwise: the file is back, or a decoder for its format is installed.
RETRIED = (
    PENDING,
    str(Reason.UNREADABLE),
    str(Reason.REPLACED),
    str(Reason.UNSUPPORTED_IMAGE),
)
RECORD = np.dtype(
    [
        ("status", "u1"),
        ("crc32", "<u4"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("detail", f"S{DETAIL_BYTES}"),
    ]
)

Records = NDArray[np.void]


def record_of(decoded: Decoded) -> Records:
    """Return the record of one decoded row, a scalar array of `RECORD`."""
    code, detail = STATUSES.index(decoded.status), decoded.detail.encode()
    return np.array((code, decoded.crc32, decoded.width, decoded.height, detail), RECORD)


def statuses_of(records: Records) -> NDArray[np.str_]:
    """Return the (N,) status of each row: `ok`, a `Reason`, or empty where not decoded yet."""
    return np.array(STATUSES)[_codes(records)]


def is_unfinished(records: Records) -> NDArray[np.bool_]:
    """Tell which of the (N,) rows are to be decoded, or tried again."""
    return np.isin(_codes(records), [STATUSES.index(status) for status in RETRIED])


def outcomes_of(records: Records, names: list[str]) -> pd.DataFrame:
    """Return columns image, crc32, width, height (uint32), status and detail, a row per record."""
    numbers = {name: records[name].astype(np.uint32) for name in ("crc32", "width", "height")}
    details = [detail.decode("utf-8", "ignore") for detail in records["detail"].tolist()]
    columns = {"image": names, **numbers, "status": statuses_of(records), "detail": details}
    return pd.DataFrame(columns).astype({"image": "str", "status": "str", "detail": "str"})


def _codes(records: Records) -> NDArray[np.uint8]:
    codes = records["status"]
    return np.where(codes < len(STATUSES), codes, np.uint8(0))
