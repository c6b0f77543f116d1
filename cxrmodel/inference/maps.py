"""Original, reconstruction and error side by side, one PNG per image."""

from __future__ import annotations

import io
import re
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

NUM_TILES = 16  # per side
NUM_BOXES = 3
FULL_SCALE = 0.5  # of the error: black to white
MAX_NAME = 100
BOX_COLOUR, GAP_PX = "#ff8c00", 4


def write_map(path: Path, pixels: NDArray[np.uint8], reconstruction: NDArray[np.float32]) -> None:
    """Write one PNG, whole or not at all.

    Boxes mark the three tiles of 16 x 16 with the largest mean error.

    Args:
        path: Where to.
        pixels: (S, S), uint8.
        reconstruction: (S, S), float32 in [0, 1].
    """
    original = pixels.astype(np.float32) / 255
    error = np.abs(reconstruction - original)
    side = len(pixels)
    canvas = Image.new("RGB", (3 * side + 2 * GAP_PX, side), "white")
    panels: list[NDArray[np.floating]] = [original, reconstruction, error / FULL_SCALE]
    for place, panel in enumerate(panels):
        grey = Image.fromarray((panel.clip(0, 1) * 255).round().astype(np.uint8))
        canvas.paste(grey, (place * (side + GAP_PX), 0))
    draw = ImageDraw.Draw(canvas)
    for left, top, right, bottom in largest_errors(error):
        for place in (0, 2):
            shift = place * (side + GAP_PX)
            draw.rectangle((left + shift, top, right + shift, bottom), outline=BOX_COLOUR, width=2)
    encoded = io.BytesIO()
    canvas.save(encoded, "PNG")
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(encoded.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def largest_errors(error: NDArray[np.float32]) -> list[tuple[int, int, int, int]]:
    """Return left, top, right and bottom of the tiles with the largest mean error."""
    tile = len(error) // NUM_TILES
    used = error[: tile * NUM_TILES, : tile * NUM_TILES]
    means = used.reshape(NUM_TILES, tile, NUM_TILES, tile).mean(axis=(1, 3))
    places = np.argsort(-means, axis=None, kind="stable")[:NUM_BOXES]
    rows, columns = np.unravel_index(places, means.shape)
    return [
        (int(x) * tile, int(y) * tile, int(x + 1) * tile - 1, int(y + 1) * tile - 1)
        for y, x in zip(rows, columns, strict=True)
    ]


def map_name(number: int, image: str) -> str:
    """Return a file name for an image's map: its number, and what of its name is harmless."""
    stem = re.sub(r"[^\w.-]+", "_", PurePosixPath(image).stem)[:MAX_NAME]
    return f"{number:06d}_{stem}.png"
