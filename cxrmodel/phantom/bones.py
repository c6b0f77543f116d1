"""Skeleton: ribs, spine, clavicles, scapulae and upper arms."""

import numpy as np

from cxrmodel.phantom.anatomy import Anatomy
from cxrmodel.phantom.canvas import Canvas, Grid, Points, ribbon, smooth_curve

NUM_RIBS = 11
NUM_TRUE_RIBS = 7
NUM_CLEAR_RIBS = 9
SIDES = (-1, 1)
Shape = tuple[Points, int]


def draw_bones(canvas: Canvas, anatomy: Anatomy) -> Grid:
    """Draw the skeleton.

    Args:
        canvas: Grid of N x N pixels.
        anatomy: Measures of the chest; `bone` scales all of it.

    Returns:
        (N, N) float32 attenuation to add to the soft tissue.
    """
    back, front, girdle = [], [], []
    for side in SIDES:
        for index in range(NUM_RIBS):
            posterior, anterior = _rib(anatomy, side, index)
            back += posterior
            front += anterior
        girdle += _clavicle(anatomy, side) + _scapula(anatomy, side) + _humerus(anatomy, side)
    ribs = 0.105 * canvas.paint(back, 0.0012) + 0.085 * canvas.paint(front, 0.0016)
    rest = 0.14 * canvas.paint(girdle, 0.0028) + 0.14 * canvas.paint(_spine(), 0.004)
    return np.float32(anatomy.bone) * (ribs + rest)


def _cortex(line: Points, half_width: float, rim: int, core: int) -> list[Shape]:
    """Draw a tubular bone: a dense rim around a less dense core."""
    taper = half_width * np.interp(
        np.linspace(0, 1, len(line)), [0, 0.08, 0.95, 1], [0.7, 1, 1, 0.6]
    )
    inner = np.maximum(taper - 0.0028, taper * 0.5)
    return [(ribbon(line, taper), rim), (ribbon(line, inner), core)]


def _rib(anatomy: Anatomy, side: int, index: int) -> tuple[list[Shape], list[Shape]]:
    """Draw one rib as an arc of an ellipse: from the spine to the wall, and forward again."""
    start = 0.025 + index / (NUM_RIBS - 1) * 0.80
    fall = 0.085 + 0.026 * min(index, 5)
    turn = np.linspace(0, np.pi * (0.86 if index < NUM_TRUE_RIBS else 0.66), 34)
    height = start + fall * (1 - np.cos(turn)) - 0.016 * np.sin(1.6 * turn) * (index > 0)
    wall = anatomy.wall(min(start + fall, 1.0)) + 0.002
    wall *= min(1.0, 0.62 + 0.2 * index)
    inward = np.where(turn < np.pi / 2, 0.012, 0.08 + 0.012 * index)
    across = inward + (wall - inward) * np.sin(turn)
    y = anatomy.apex_y + height * 0.5 * (sum(anatomy.base_y) - 2 * anatomy.apex_y)
    line = np.stack([0.5 + side * across, y], axis=1)
    half = 0.0095 + 0.0003 * index
    # The lowest ribs lie behind the abdomen, where a film shows them least.
    rim, core = (225, 165) if index < NUM_CLEAR_RIBS else (110, 80)
    return _cortex(line[:20], half, rim, core), _cortex(line[18:], half * 1.1, rim - 20, core - 15)


def _spine() -> list[Shape]:
    """Vertebral bodies with their discs and spinous processes, from neck to waist."""
    shapes: list[Shape] = []
    pitch = np.linspace(0.033, 0.062, 30)
    for top, height in zip(-0.25 + np.cumsum(pitch), pitch, strict=True):
        half = 0.026 + 0.012 * min(max(top, 0), 1)
        rim = [(-half, 0.02), (-half * 0.86, 0.45), (-half, 0.88)]
        rim += [(half, 0.88), (half * 0.86, 0.45), (half, 0.02)]
        core = [(0.9 * x, 0.45 + 0.78 * (y - 0.45)) for x, y in rim]
        process = [(-0.005, 0.4), (0.005, 0.4), (0.006, 0.8), (0.0, 0.95), (-0.006, 0.8)]
        ring = [(half * 0.62, 0.22), (half * 0.8, 0.38), (half * 0.62, 0.54), (half * 0.46, 0.38)]
        pedicles = [[(side * x, y) for x, y in ring] for side in SIDES]
        for outline, level in (
            (rim, 160),
            (core, 120),
            (process, 165),
            *((p, 165) for p in pedicles),
        ):
            shapes.append((np.array([(0.5 + x, top + y * height) for x, y in outline]), level))
    return shapes


def _clavicle(anatomy: Anatomy, side: int) -> list[Shape]:
    y = anatomy.apex_y + 0.055 + anatomy.clavicle_y
    points = [(0.035, y + 0.035), (0.10, y + 0.012), (0.19, y - 0.012), (0.28, y - 0.022)]
    points += [(0.36, y - 0.05)]
    line = smooth_curve([(0.5 + side * h, v) for h, v in points], closed=False)
    return _cortex(line, 0.0125, 255, 185)


def _scapula(anatomy: Anatomy, side: int) -> list[Shape]:
    """Blade with dense borders, its spine and the acromion."""
    inset = anatomy.scapula_inset
    y = anatomy.apex_y

    def place(points: list[tuple[float, float]], *, closed: bool) -> Points:
        moved = [(0.5 + side * (h - inset), y + v) for h, v in points]
        return smooth_curve(moved, closed=closed)

    blade = [(0.39, 0.075), (0.395, 0.12), (0.37, 0.20), (0.345, 0.34), (0.325, 0.35)]
    blade += [(0.305, 0.25), (0.30, 0.12), (0.33, 0.05)]
    lateral = place([(0.395, 0.11), (0.368, 0.20), (0.343, 0.34)], closed=False)
    ridge = place([(0.33, 0.07), (0.38, 0.045), (0.42, 0.02), (0.445, 0.03)], closed=False)
    return [
        (place(blade, closed=True), 70),
        (ribbon(lateral, 0.006), 150),
        *_cortex(ridge, 0.010, 130, 95),
    ]


def _humerus(anatomy: Anatomy, side: int) -> list[Shape]:
    x, y = anatomy.body_half_width + 0.005, anatomy.apex_y + 0.085
    turn = np.linspace(0, 2 * np.pi, 24)
    head = np.stack([0.5 + side * (x + 0.042 * np.cos(turn)), y + 0.045 * np.sin(turn)], axis=1)
    spread = anatomy.arm_spread
    shaft = [
        (x + 0.012, y + 0.02),
        (x + 0.04 + 0.22 * spread, 0.55),
        (x + 0.05 + 0.42 * spread, 1.1),
    ]
    line = smooth_curve([(0.5 + side * h, v) for h, v in shaft], closed=False)
    return [*_cortex(line, 0.022, 165, 105), (head, 110)]
