"""From the description of an image to its pixels: exposure, noise, shutters and marker."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cxrmodel.phantom.anatomy import Anatomy, sample_anatomy
from cxrmodel.phantom.body import draw_bones, draw_tissue
from cxrmodel.phantom.canvas import Canvas, Grid, ribbon, smooth_curve, smoothstep
from cxrmodel.phantom.findings import Chest, Site, boxes, place_sites, shift_anatomy
from cxrmodel.phantom.population import ImageSpec

SIZE_STEP_PX = 64
LINE_SHARE = 0.5
PORTABLE_SHARE = 0.5
CIRCLED_SHARE = 0.4
COLLIMATED_SHARE = 0.25


def check_size(size_px: int) -> None:
    """Refuse a side that the working grids do not divide.

    Raises:
        ValueError: If the side is no positive multiple of 64 pixels.
    """
    if size_px < SIZE_STEP_PX or size_px % SIZE_STEP_PX:
        raise ValueError(f"size_px must be a positive multiple of {SIZE_STEP_PX}, got {size_px}")


def draw_image(spec: ImageSpec, size_px: int = 1024) -> NDArray[np.uint8]:
    """Draw one synthetic chest X-ray.

    The attenuation of tissue, air and bone is summed on a grid of half the side, as along a ray,
    then exposed, enlarged and given noise at full size.

    Args:
        spec: What the image shows.
        size_px: Side of the image, a multiple of 64 pixels.

    Returns:
        (size_px, size_px) uint8, bright where attenuation is high, as in NIH's images.

    Raises:
        ValueError: If `size_px` is no positive multiple of 64.
    """
    check_size(size_px)
    anatomy, sites = _plan(spec)
    canvas = Canvas(anatomy.frame, size_px // 2)
    rng = spec.image_rng(1)
    tissue = draw_tissue(canvas, anatomy, spec.body_rng(2))
    Chest(canvas, anatomy, tissue, rng).draw(sites)
    bones = draw_bones(canvas, anatomy) * smoothstep(tissue.body / 0.3)
    attenuation = tissue.body - tissue.air + tissue.vessels + bones
    if spec.view == "AP":
        attenuation += _leads(canvas, rng)
    return _expose(canvas, attenuation, spec, size_px)


def image_boxes(spec: ImageSpec, size_px: int = 1024) -> list[tuple[str, tuple[float, ...]]]:
    """Locate the findings of an image without drawing it.

    Args:
        spec: What the image shows.
        size_px: Side of the image, pixels.

    Returns:
        (finding, (x, y, width, height)) in pixels, for the findings that NIH located.
    """
    anatomy, sites = _plan(spec)
    return boxes(sites, anatomy.frame, size_px)


def _plan(spec: ImageSpec) -> tuple[Anatomy, list[Site]]:
    resting = sample_anatomy(spec)
    anatomy = shift_anatomy(resting, place_sites(spec, resting))
    return anatomy, place_sites(spec, anatomy)


def _leads(canvas: Canvas, rng: np.random.Generator) -> Grid:
    """Wires, electrodes and a central line, as portable X-rays often show."""
    wires, discs = [], []
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.6)
        path = [(x, y), (x + rng.normal(0, 0.1), y + 0.12), (x + rng.normal(0, 0.2), y + 0.3)]
        path.append((rng.choice((-0.2, 1.2)), rng.uniform(0.5, 1.1)))
        wires.append(ribbon(smooth_curve(path, closed=False), 0.0018))
        discs.append(ribbon(np.array([(x - 0.011, y), (x, y), (x + 0.011, y)]), 0.012))
    if rng.random() < LINE_SHARE:
        path = [(0.42, -0.1), (0.43, 0.12), (0.46, 0.25), (0.465, rng.uniform(0.36, 0.46))]
        wires.append(ribbon(smooth_curve(path, closed=False), 0.0025))
    return 0.22 * canvas.fill(wires, 0.0006) + 0.12 * canvas.fill(discs, 0.001)


def _expose(canvas: Canvas, attenuation: Grid, spec: ImageSpec, size_px: int) -> NDArray[np.uint8]:
    """Apply the detector's response, then noise, collimation and marker."""
    rng = spec.image_rng(2)
    lying = spec.view == "AP"
    gain = rng.normal(1.8 if not lying else 1.9, 0.3)
    toe = rng.uniform(-0.02, 0.14)
    gamma = np.exp(rng.normal(0.12 if not lying else 0.04, 0.2))
    ceiling, base = rng.uniform(0.9, 1.1), min(rng.exponential(0.05), 0.2)
    dose = attenuation * (1 + 0.03 * canvas.clouds(rng, 3)) - np.float32(toe)
    value = (1 - np.exp(np.float32(-gain) * np.maximum(dose, 0))) ** np.float32(gamma)
    value = np.float32(base) + np.float32(ceiling - base) * value
    grain = np.float32(0.0035) * rng.standard_normal(value.shape, dtype=np.float32)
    grey = canvas.enlarge(value + grain, size_px)
    noise = rng.standard_normal(grey.shape, dtype=np.float32)
    grey = grey * np.float32(255) + noise * np.float32(rng.uniform(0.5, 1.3))
    image = Image.fromarray(np.clip(grey + np.float32(0.5), 0, 255).astype(np.uint8))
    _collimate(image, rng)
    _mark(image, rng, portable=lying and bool(rng.random() < PORTABLE_SHARE))
    return np.asarray(image)


def _collimate(image: Image.Image, rng: np.random.Generator) -> None:
    """Cover the edges of one image in four, as shutters do."""
    if rng.random() > COLLIMATED_SHARE:
        return
    left, top, right, bottom = rng.uniform(-0.03, 0.05, 4).clip(0) * image.width
    open_part = image.crop(
        (int(left), int(top), image.width - int(right), image.height - int(bottom))
    )
    image.paste(4, (0, 0, image.width, image.height))
    image.paste(open_part, (int(left), int(top)))


def _mark(image: Image.Image, rng: np.random.Generator, *, portable: bool) -> None:
    """Stamp the side marker in a top corner, and the word of a portable X-ray."""
    side = image.width
    letter = str(rng.choice(("L", "L", "L", "R")))
    x = rng.uniform(0.86, 0.93) if letter == "L" else rng.uniform(0.05, 0.12)
    y = rng.uniform(0.03, 0.12)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=side * 0.036)
    draw.text((x * side, y * side), letter, fill=245, font=font, anchor="mm")
    if rng.random() < CIRCLED_SHARE:
        r = 0.028 * side
        box = (x * side - r, y * side - r, x * side + r, y * side + r)
        draw.ellipse(box, outline=240, width=max(1, side // 400))
    if portable:
        small = ImageFont.load_default(size=side * 0.018)
        draw.text((0.72 * side, (y + 0.01) * side), "PORTABLE", fill=235, font=small, anchor="mm")
