"""The tags of a DICOM file, read without trust. Importing this needs the extra `dicom`."""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cxrmodel.data.image_header import DICOM_PREFIX, DICOM_PREFIX_AT

META_AT, META_GROUP = DICOM_PREFIX_AT + len(DICOM_PREFIX), 0x0002
TRANSFER_SYNTAX = Tag("TransferSyntaxUID")
QUOTE = re.compile(r"""['"]""")

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
"""What pydicom raises on bytes that are not what their header says."""

# pydicom warns with the values it finds, and in a damaged file any tag may hold a patient's name.
logging.getLogger("pydicom").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module=r"pydicom\b")


def explain(error: Exception) -> str:
    """Return an error's text, up to the first value that it quotes from the file, or its advice."""
    text = " ".join(QUOTE.split(str(error))[0].partition(" - ")[0].split())
    return text or type(error).__name__


def transfer_syntax(data: bytes) -> UID | None:
    """Return the transfer syntax that a file names, None where it names none.

    Read by itself, before the rest: of a deflated file pydicom would inflate whatever there is.
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
        keywords: Names of the tags.

    Returns:
        The text of each tag found, and whether bytes beyond `head` cannot hold more of them.
    """
    tags = {Tag(keyword): keyword for keyword in keywords}
    is_whole = False

    def is_past(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal is_whole
        is_whole = bool(tag > max(tags))
        return is_whole

    if not head.startswith(DICOM_PREFIX, DICOM_PREFIX_AT):
        return {}, True
    try:
        if transfer_syntax(head) == DeflatedExplicitVRLittleEndian:
            return {}, True
        dataset = read_partial(io.BytesIO(head), is_past, specific_tags=list(tags))
    except PARSE_ERRORS:
        return {}, False
    return {keyword: _text(dataset, tag) for tag, keyword in tags.items()}, is_whole


def _text(dataset: Dataset, tag: int) -> str:
    """Return a tag's text, empty where it is absent, cut short or no text.

    Of its bytes as they are: pydicom's conversion warns with what it finds, and that may be an id.
    """
    element = dataset.get_item(tag) if tag in dataset else None
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return ""
    if len(element.value) != element.length:
        return ""
    return element.value.decode("utf-8", "backslashreplace").strip(" \0")
