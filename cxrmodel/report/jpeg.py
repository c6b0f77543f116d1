"""Photographs as JPEG, small enough for a page that holds many."""

from __future__ import annotations

import base64
import io

from PIL import Image

QUALITY = 86
MAX_PIXELS = 5_000_000
SHRINK = 0.8


def jpeg_url(image: Image.Image, *, max_bytes: int) -> str:
    """Return an image as a `data:` URL, smaller where it must be.

    Args:
        image: Grey or RGB.
        max_bytes: Of the JPEG; the text of the URL has a third more.
    """
    scale = min(1.0, (MAX_PIXELS / (image.width * image.height)) ** 0.5)
    while len(jpeg := encode_jpeg(image, scale)) > max_bytes:
        scale *= SHRINK
    return data_url("image/jpeg", jpeg)


def encode_jpeg(image: Image.Image, scale: float = 1.0) -> bytes:
    """Return an image as JPEG.

    Args:
        image: Grey or RGB.
        scale: Of its sides.
    """
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resized = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    resized.save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()


def data_url(mime: str, data: bytes) -> str:
    """Return a file's content as a `data:` URL."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
