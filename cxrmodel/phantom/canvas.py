"""Drawing primitives: patient coordinates to antialiased masks on the working grid.

Patient coordinates are (x, y) in units of the image's side, x to the viewer's right, y down,
with the spine at x = 0.5. `side` is -1 for the viewer's left (the patient's right lung), else +1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

Grid = NDArray[np.float32]
Points = NDArray[np.float64]

MIN_BLUR_PX = 0.5
BORDER = 0.25
"""Fraction of the side added all around where distances are measured: bodies leave the image."""


def smooth_curve(
    points: Sequence[tuple[float, float]] | Points, *, closed: bool, steps: int = 8
) -> Points:
    """Interpolate control points with a Catmull-Rom spline.

    Args:
        points: K control points (x, y).
        closed: Whether the last point joins the first.
        steps: Points per control interval.

    Returns:
        (P, 2) float64 points through all control points.
    """
    knots = np.asarray(points, dtype=np.float64)
    ends = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    k = np.concatenate([ends[0], knots, ends[1]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (k[i : len(k) - 3 + i, None, :] for i in range(4))
    curve = p1 + 0.5 * t * (
        p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))
    )
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])


def ribbon(line: Points, half_width: float | NDArray[np.float64]) -> Points:
    """Return the (2P, 2) outline of a band of the given half-width around a line of P points."""
    tangent = np.gradient(line, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    offset = normal * np.reshape(half_width, (-1, 1))
    return np.concatenate([line + offset, (line - offset)[::-1]])


def as_grid(values: NDArray[np.floating]) -> Grid:
    """Return the values as float32, without a copy where they are."""
    return np.asarray(values, dtype=np.float32)


def smoothstep(values: NDArray[np.floating]) -> Grid:
    """Ease values from 0 to 1; anything outside [0, 1] is clipped."""
    t = np.clip(as_grid(values), 0, 1)
    return as_grid(t * t * (3 - 2 * t))


@dataclass(frozen=True)
class Frame:
    """Where the patient stands in the image: a turn, a zoom and a shift about the centre."""

    angle_rad: float = 0.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def _matrix(self) -> NDArray[np.float64]:
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        return self.zoom * np.array([[cos, -sin], [sin, cos]])

    def to_image(self, points: Points) -> Points:
        """Map (P, 2) patient coordinates to (P, 2) image coordinates in units of its side."""
        return (np.asarray(points) - 0.5) @ self._matrix().T + 0.5 + self.shift

    def to_patient(self, x: Grid, y: Grid) -> tuple[Grid, Grid]:
        """Map image coordinates to patient coordinates, shape by shape."""
        m = np.linalg.inv(self._matrix()).astype(np.float32)
        dx, dy = x - np.float32(0.5 + self.shift[0]), y - np.float32(0.5 + self.shift[1])
        return m[0, 0] * dx + m[0, 1] * dy + np.float32(0.5), (
            m[1, 0] * dx + m[1, 1] * dy + np.float32(0.5)
        )


class Canvas:
    """Rasterises shapes in patient coordinates on an N x N grid that covers the image.

    Attributes:
        size: N, pixels along a side.
        x: (N, N) float32 patient x of every grid pixel.
        y: (N, N) float32 patient y of every grid pixel.
    """

    def __init__(self, frame: Frame, size: int) -> None:
        self.frame = frame
        self.size = size
        centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.x, self.y = frame.to_patient(centres[None, :], centres[:, None])

    def _pixels(self, points: Points, side: float, offset: float = 0.0) -> list[tuple[float, ...]]:
        return [tuple(p) for p in (self.frame.to_image(points) * side + offset - 0.5).tolist()]

    def fill(self, outlines: Iterable[Points], blur: float = 0.0) -> Grid:
        """Fill closed outlines.

        Args:
            outlines: Closed curves, each (P, 2) in patient coordinates.
            blur: Softness of the edge as a fraction of the image's side.

        Returns:
            (N, N) float32 coverage in [0, 1].
        """
        return self.paint([(outline, 255) for outline in outlines], blur)

    def paint(self, shapes: Iterable[tuple[Points, int]], blur: float = 0.0) -> Grid:
        """Paint outlines in order, each with its own level 0..255, a later over an earlier one.

        Returns:
            (N, N) float32 level / 255.
        """
        image = Image.new("L", (2 * self.size, 2 * self.size))
        draw = ImageDraw.Draw(image)
        for outline, level in shapes:
            draw.polygon(self._pixels(outline, 2 * self.size), fill=level)
        image = image.reduce(2)
        # The reduction smooths by half a pixel already; a smaller blur would only cost time.
        if blur * self.size > MIN_BLUR_PX:
            image = image.filter(ImageFilter.GaussianBlur(blur * self.size))
        return np.asarray(image, dtype=np.float32) / np.float32(255)

    def depth(self, outlines: Iterable[Points]) -> Grid:
        """Measure how far inside the outlines each pixel lies.

        Returns:
            (N, N) float32 distance to the nearest edge as a fraction of the side, 0 outside.
            Measured at a quarter of the grid, since it only shapes smooth tissue.
        """
        inner, pad = self.size // 4, int(self.size // 4 * BORDER)
        image = Image.new("L", (inner + 2 * pad, inner + 2 * pad))
        draw = ImageDraw.Draw(image)
        for outline in outlines:
            draw.polygon(self._pixels(outline, inner, pad), fill=1)
        distance = ndimage.distance_transform_edt(np.asarray(image))
        distance = ndimage.gaussian_filter(distance.astype(np.float32), 1.0)
        return self.enlarge(distance[pad : pad + inner, pad : pad + inner] / np.float32(inner))

    def enlarge(self, grid: Grid, size: int | None = None) -> Grid:
        """Resample a square float32 grid to N x N, or to `size`, with bicubic weights."""
        side = size or self.size
        image = Image.fromarray(np.ascontiguousarray(grid))
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)

    def clouds(self, rng: np.random.Generator, cells: int) -> Grid:
        """Draw a smooth random field.

        Args:
            rng: Source of the field.
            cells: Independent values along a side: more cells, finer clouds.

        Returns:
            (N, N) float32, mean about 0, standard deviation about 0.7.
        """
        return self.enlarge(rng.standard_normal((cells, cells), dtype=np.float32))

    def blob(self, x: float, y: float, rx: float, ry: float) -> Grid:
        """Return (N, N) float32 squared elliptical radius about (x, y): below 1 inside."""
        across = (self.x - np.float32(x)) / np.float32(rx)
        down = (self.y - np.float32(y)) / np.float32(ry)
        return across * across + down * down
