"""What a compressed frame says of itself, before anything is decoded."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import NamedTuple

from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    RLELossless,
)

J2K_SYNTAXES = (*JPEG2000TransferSyntaxes, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
J2K_SIZE = b"\xff\x4f\xff\x51"
JPEG_START, JPEG_SEGMENT = b"\xff\xd8", 0xFF
JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # SOF0 to 15, SOF55
JPEG_SCAN = 0xDA
NO_RUN = 128  # as a control byte: below it, bytes as they are; above it, one byte repeated


class Frame(NamedTuple):
    """The header of a JPEG, JPEG-LS or JPEG 2000 frame.

    Attributes:
        width: In pixels.
        height: In pixels.
        samples: A pixel.
        bits: A sample.
        is_signed: None where such a frame does not say.
    """

    width: int
    height: int
    samples: int
    bits: int
    is_signed: bool | None


def read_frame(data: bytes, syntax: UID) -> Frame | None:
    """Read the header of a compressed frame; None where there is none that can be read."""
    try:
        return _read_j2k(data) if syntax in J2K_SYNTAXES else _read_jpeg(data)
    except (struct.error, IndexError):
        return None


def _read_j2k(data: bytes) -> Frame | None:
    """Source: ISO/IEC 15444-1, A.5.1."""
    stated = get_j2k_parameters(data)
    if not stated:
        return None
    at = data.index(J2K_SIZE) + 8  # markers, length and capabilities
    right, bottom, left, top = struct.unpack_from(">4L", data, at)
    (samples,) = struct.unpack_from(">H", data, at + 32)
    return Frame(right - left, bottom - top, samples, stated["precision"], stated["is_signed"])


def _read_jpeg(data: bytes) -> Frame | None:
    """Source: ISO/IEC 10918-1, B.2.2, and 14495-1, C.2.2, whose segments are alike."""
    position = len(JPEG_START)
    if not data.startswith(JPEG_START):
        return None
    while data[position] == JPEG_SEGMENT:
        marker = data[position + 1]
        if marker == JPEG_SEGMENT:  # any number of these may precede a marker
            position += 1
        elif marker in JPEG_FRAMES:
            bits, height, width, samples = struct.unpack_from(">BHHB", data, position + 4)
            return Frame(width, height, samples, bits, None)
        elif marker == JPEG_SCAN:
            return None
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None


def are_runs_too_long(frame: bytes, most: int) -> bool:
    """Tell whether an RLE frame has a segment that grows beyond so many bytes.

    Raises:
        struct.error: The frame is shorter than its header.
    """
    num_segments, *starts = struct.unpack_from("<16L", frame)
    ends = [*starts[:num_segments], len(frame)]
    return any(_run_length(frame[start:end], most) > most for start, end in pairwise(ends))


def _run_length(segment: bytes, most: int) -> int:
    """Add up the run lengths of an RLE segment. Source: DICOM PS3.5, section G.3."""
    position = total = 0
    while position < len(segment) and total <= most:
        control = segment[position]
        if control > NO_RUN:
            position, total = position + 2, total + 257 - control
        elif control < NO_RUN:
            position, total = position + control + 2, total + control + 1
        else:
            position += 1
    return total


def has_own_header(syntax: UID) -> bool:
    """Tell whether frames of a transfer syntax have a header of their own."""
    return syntax.is_encapsulated and syntax != RLELossless
