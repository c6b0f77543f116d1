"""Decodes lossless JPEG, 12-bit JPEG and JPEG-LS frames, as a plugin of pydicom.

By imagecodecs, which is under a BSD licence: libjpeg-turbo and CharLS, which report a damaged frame
as an error. Of pydicom's own plugins, GDCM ends the process at some damaged frames, and pylibjpeg's
decoder is under the GPL.
"""

from __future__ import annotations

import importlib.util

from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
)

PLUGIN = "imagecodecs"
SYNTAXES = (
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, (PLUGIN,))
JPEG_END = b"\xff\xd9"


def is_available(syntax: str) -> bool:
    """Tell whether frames of a transfer syntax can be decoded here."""
    return syntax in DECODER_DEPENDENCIES and importlib.util.find_spec(PLUGIN) is not None


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame to samples beside each other, in the colours of the frame.

    Args:
        frame: The compressed frame.
        runner: What pydicom knows of it; told how the samples come out.

    Raises:
        ValueError: The frame has no end.
        RuntimeError: It is damaged.
    """
    import imagecodecs  # noqa: PLC0415 - an optional extra

    if JPEG_END not in frame:  # without it the missing rows would be grey
        raise ValueError("the frame has no end")
    if runner.transfer_syntax in JPEGLSTransferSyntaxes:
        pixels = imagecodecs.jpegls_decode(frame)
    else:
        colours = "RGB" if runner.samples_per_pixel > 1 else "GRAYSCALE"  # as they are
        pixels = imagecodecs.jpeg8_decode(frame, colorspace=colours, outcolorspace=colours)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
    samples: bytes = pixels.tobytes()
    return samples
