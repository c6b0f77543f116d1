"""The tags of a DICOM file, read without trust. Importing this needs the extra `dicom`."""

from __future__ import annotations

import io
import logging
import math
import struct
import warnings
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cxrmodel.data.files.listing import DICOM_PREFIX, DICOM_PREFIX_AT
from cxrmodel.data.images.formats import format_of
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import ImageError

META_AT, META_GROUP = DICOM_PREFIX_AT + len(DICOM_PREFIX), 0x0002
TRANSFER_SYNTAX, CODE_MEANING = Tag("TransferSyntaxUID"), Tag("CodeMeaning")

PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""Raised by pydicom for bytes that are not what their header says."""

# pydicom's warnings quote values, and in a damaged file any tag may hold a patient's name. Why a
# frame cannot be decoded, which it logs with a traceback, is in the ledger.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\b")
NO_TEXT = ("FD", "FL", "SL", "SS", "UL", "US")


def damaged(detail: str) -> ImageError:
    """Return the error for a file that is not what its header says."""
    return ImageError(Reason.DAMAGED_IMAGE, detail)


def unsupported(detail: str) -> ImageError:
    """Return the error for a file that nothing here decodes."""
    return ImageError(Reason.UNSUPPORTED_IMAGE, detail)


def transfer_syntax(data: bytes) -> UID | None:
    """Return the transfer syntax that a file names, None where it names none.

    Read by itself, before the rest: pydicom would inflate a deflated file whatever its size.
    """
    meta = read_dataset(
        io.BytesIO(data[META_AT:]),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag >> 16 != META_GROUP,
        specific_tags=[TRANSFER_SYNTAX],
    )
    syntax = UID(_text(meta, TRANSFER_SYNTAX), IGNORE)
    return syntax if syntax.is_valid else None


def read_tags(head: bytes, keywords: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Read some tags from the first bytes of a file, as text.

    Args:
        head: The file's first bytes.
        keywords: Names of the tags; for a sequence of codes, the meaning of the first is returned.

    Returns:
        The text of each tag found, and whether all of them lie within `head`. A PNG or JPEG has
        none.

    Raises:
        ImageError: It is not an image file, or a DICOM file whose head cannot be read.
    """
    tags = {Tag(keyword): keyword for keyword in keywords}
    is_whole = False

    def is_past(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal is_whole
        is_whole = bool(tag > max(tags))
        return is_whole

    if format_of(head) != "dicom":
        return {}, True
    try:
        is_deflated = transfer_syntax(head) == DeflatedExplicitVRLittleEndian
        if not is_deflated:
            wanted: list[BaseTag | int] = [*tags, CODE_MEANING]
            dataset = read_partial(io.BytesIO(head), is_past, specific_tags=wanted)
            return {keyword: _text(dataset, tag) for tag, keyword in tags.items()}, is_whole
    except PARSE_ERRORS as error:
        detail = "its tags cannot be parsed as its transfer syntax says"
        raise ImageError(Reason.DAMAGED_IMAGE, detail) from error
    raise ImageError(Reason.UNSUPPORTED_IMAGE, "its tags are deflated, which is not read here")


def _text(dataset: Dataset, tag: int) -> str:
    """Return a tag's text, empty where it is absent, cut short or not text.

    Decoded from the raw bytes: pydicom's own conversion quotes values in warnings, such as an id.
    """
    if dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ":
        return _meaning(dataset, tag)
    element = dataset.get_item(tag) if tag in dataset else None
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return ""
    if len(element.value) != element.length:
        return ""
    return element.value.decode("utf-8", "backslashreplace").strip(" \0")


def _meaning(dataset: Dataset, tag: int) -> str:
    try:
        items = dataset[tag].value if tag in dataset else ()
        return _text(items[0], CODE_MEANING) if items else ""
    except PARSE_ERRORS:  # cut short
        return ""


def whole_number(dataset: Dataset, keyword: str) -> int | None:
    """Return a tag's number, None where it is absent or empty.

    Raises:
        ImageError: It is not a whole number.
    """
    try:
        value = dataset.get(keyword)
        return None if value is None or value == "" else int(value)
    except PARSE_ERRORS as error:
        raise damaged(f"its {keyword} is no whole number") from error


def text(dataset: Dataset, keyword: str) -> str:
    """Return a tag's text in capitals, empty where it is absent or not text."""
    try:
        return str(dataset.get(keyword) or "").strip().upper()
    except PARSE_ERRORS:
        return ""


def real_numbers(dataset: Dataset, keyword: str) -> list[float]:
    """Return a tag's numbers, NaN for each that is not one; empty where it is absent or empty.

    A decimal comma is read as a point: some devices write decimals as their language does.
    """
    element = dataset.get_item(keyword) if keyword in dataset else None
    if element is None or (not element.value and element.value != 0):
        return []
    if isinstance(element, RawDataElement) and element.VR not in NO_TEXT:
        text_of_all = bytes(element.value).decode("ascii", "replace")
        return [_real_number(part) for part in text_of_all.split("\\")]
    try:
        values = dataset[keyword].value
    except PARSE_ERRORS:
        return [math.nan]
    several = isinstance(values, Sequence) and not isinstance(values, str)
    return [_real_number(str(value)) for value in (values if several else [values])]


def _real_number(text: str) -> float:
    try:
        return float(text.strip(" \0").replace(",", "."))
    except ValueError:
        return math.nan
