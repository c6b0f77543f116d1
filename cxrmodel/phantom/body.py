"""The healthy chest: soft tissue (body outline, lungs, vessels, heart, abdomen, breasts) and bones.

All maps are thickness times attenuation in one arbitrary unit in which the middle of the chest
without its air is about 0.8. Attenuations add along a ray, so maps add and air subtracts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmodel.phantom.anatomy import Anatomy
from cxrmodel.phantom.canvas import (
    Canvas,
    Grid,
    Points,
    as_grid,
    ribbon,
    smooth_curve,
    smoothstep,
)

LUNG_AIR = 0.44
BODY_DEPTH = np.float32(0.655)
VESSEL_GENERATIONS = 6
NUM_RIBS = 11
NUM_TRUE_RIBS = 7
NUM_CLEAR_RIBS = 9
SIDES = (-1, 1)

Vector = NDArray[np.float64]
Shape = tuple[Points, int]


@dataclass
class Tissue:
    """The maps of an image, (N, N) float32 each, that findings change in place."""

    body: Grid
    """Attenuation of everything but lungs and bones."""

    air: Grid
    """Attenuation that aerated lung takes away."""

    vessels: Grid
    """Attenuation of the vessels within aerated lung."""

    lung: tuple[Grid, Grid]
    """Coverage 0..1 of the viewer's left and right lung above the diaphragm."""

    def aerated(self) -> Grid:
        """Return 0..1: how far a pixel shows lung rather than heart, abdomen or an opacity."""
        return as_grid(np.clip(4 * self.air, 0, 1))

    def opacify(self, part: Grid) -> None:
        """Replace a part 0..1 of the air by tissue, which also hides the vessels there."""
        kept = 1 - np.clip(part, 0, 1)
        self.air *= kept
        self.vessels *= kept


def draw_tissue(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Tissue:
    """Draw the soft tissue of a chest without opacities.

    Args:
        canvas: Grid of N x N pixels.
        anatomy: Measures of the chest.
        rng: Source of the vessel tree and of the texture.
    """
    outlines = [anatomy.lung_outline(side) for side in SIDES]
    lungs = [canvas.fill([outline], 0.002) for outline in outlines]
    abdomen = canvas.fill([_abdomen(anatomy)], 0.0015)
    heart = canvas.fill([anatomy.heart_outline()], 0.005)
    mediastinum = np.maximum(heart, canvas.fill([_great_vessels(anatomy)], 0.008))
    hila = canvas.fill(_hila(anatomy), 0.014)
    open_lung = (1 - 0.95 * abdomen) * (1 - 0.86 * mediastinum) * np.maximum(*lungs)
    depth = np.clip(canvas.depth(outlines) / 0.09, 0, 1)
    air = LUNG_AIR * anatomy.air * open_lung * (0.30 + 0.70 * depth * (2 - depth))
    torso = _torso(canvas, anatomy)
    middle = np.exp(-canvas.blob(0.5, 0.75, 0.11, 0.42))
    body = torso + (0.10 + 0.19 * middle) * mediastinum * (1 - abdomen) + 0.05 * middle * torso
    body += abdomen * _belly(canvas, anatomy, torso)
    body += _breasts(canvas, anatomy) - _gas(canvas, anatomy, rng) - _airway(canvas, anatomy)
    return Tissue(
        body=as_grid(body),
        air=as_grid(air * (1 - 0.42 * hila) * (1 - _perihilar(canvas, anatomy))),
        vessels=as_grid(_vessels(canvas, anatomy, rng) * open_lung),
        lung=(lungs[0] * (1 - abdomen), lungs[1] * (1 - abdomen)),
    )


def _perihilar(canvas: Canvas, anatomy: Anatomy) -> Grid:
    """Return the part of the air hidden by vessels too small to draw: most near the hila."""
    r = canvas.blob(0.5, anatomy.lung_y(0.52, 1), 0.26, 0.36)
    return as_grid(0.24 * np.exp(-1.2 * r * r))


def _torso(canvas: Canvas, anatomy: Anatomy) -> Grid:
    """Trunk, neck and arms, round at the skin."""
    w = anatomy.body_half_width
    half = [(0.115, -0.3), (0.115, 0.0), (0.15, 0.045), (0.3, 0.085), (w + 0.03, 0.12)]
    half += [(w + 0.075, 0.18), (w + 0.06, 0.3), (w + 0.01, 0.40), (w - 0.01, 0.52)]
    half += [(w, 0.75), (w - 0.005, 1.3)]
    sides = [(0.5 + h, y) for h, y in half] + [(0.5 - h, y) for h, y in reversed(half)]
    outlines = [smooth_curve(sides, closed=True), *(_arm(anatomy, side) for side in SIDES)]
    depth = np.clip(canvas.depth(outlines) / 0.17, 0, 1)
    round_skin = 0.16 + 0.84 * np.sqrt(np.clip(depth * (2 - depth), 0, 1))
    # Neck and shoulders are thinner from front to back than the chest is.
    upper = 0.70 + 0.30 * smoothstep(canvas.y / 0.42 + 0.08)
    depth_unit = BODY_DEPTH * np.float32(anatomy.body_depth)
    return as_grid(depth_unit * upper * round_skin * canvas.fill(outlines, 0.003))


def _belly(canvas: Canvas, anatomy: Anatomy, torso: Grid) -> Grid:
    """Return what the abdomen adds to the torso: round, so it fades towards the flanks."""
    wall, waist = anatomy.wall(1.0), anatomy.body_half_width + 0.02
    down = np.clip((canvas.y - np.float32(anatomy.base_y[0] - 0.03)) / 0.3, 0, 1)
    across = np.abs(canvas.x - 0.5) / (wall + (waist - wall) * down)
    below = smoothstep((canvas.y - np.float32(anatomy.dome_y(-1))) / 0.35)
    fade = np.clip(1 - across**2, 0, 1) ** 0.75 * np.clip(torso / BODY_DEPTH, 0, 1)
    return as_grid((0.30 + 0.22 * below) * fade)


def _arm(anatomy: Anatomy, side: int) -> Points:
    shoulder = anatomy.body_half_width + 0.01
    line = [(shoulder, 0.19), (shoulder + 0.04 + 0.22 * anatomy.arm_spread, 0.55)]
    line.append((shoulder + 0.05 + 0.42 * anatomy.arm_spread, 1.1))
    points = smooth_curve([(0.5 + side * h, y) for h, y in line], closed=False)
    return ribbon(points, 0.07)


def _abdomen(anatomy: Anatomy) -> Points:
    """Everything below the diaphragm: two round domes that meet under the heart."""
    part = np.array([1.6, 1.15, 1.02, 0.99, 0.94, 0.86, 0.76, 0.64, 0.52, 0.4, 0.25, 0.1, 0.0])
    lateral = part - 0.46
    fall = np.maximum(lateral / 0.55, -lateral / 0.75)
    rise = np.sqrt(np.clip(1 - fall**2, 0, 1))
    halves = []
    for side in SIDES:
        top = anatomy.side(anatomy.dome_height, side)
        y = anatomy.side(anatomy.base_y, side) - top * rise
        halves.append(np.stack([0.5 + side * part * anatomy.wall(1.0), y], axis=1))
    domes = smooth_curve(np.concatenate([halves[0], halves[1][::-1][1:]]), closed=False)
    return np.concatenate([domes, [(1.6, 1.6), (-0.6, 1.6)]])


def _great_vessels(anatomy: Anatomy) -> Points:
    """Mediastinum from the neck to the heart, with the aortic knob and the pulmonary trunk."""
    top, level = anatomy.apex_y, anatomy.dome_y(1)
    x = 0.5 + anatomy.heart_shift
    knob = top + 0.175
    left = [(0.052, top - 0.2), (0.040, top + 0.04), (0.044, knob - 0.045), (0.074, knob - 0.01)]
    left += [(0.07, knob + 0.025), (0.052, knob + 0.055), (0.066, knob + 0.095), (0.04, level)]
    right = [(-0.05, level), (-0.05, knob + 0.08), (-0.052, knob), (-0.042, top + 0.03)]
    right.append((-0.052, top - 0.2))
    return smooth_curve([(x + h, y) for h, y in left + right], closed=True)


def _hila(anatomy: Anatomy) -> list[Points]:
    """Soft roots of the lungs, the left one higher."""
    outlines = []
    for side, drop in ((-1, 0.275), (1, 0.255)):
        y = anatomy.apex_y + drop
        root = [(0.03, -0.04), (0.075, -0.035), (0.098, 0.0), (0.085, 0.05), (0.065, 0.10)]
        root.append((0.03, 0.11))
        outlines.append(smooth_curve([(0.5 + side * h, y + v) for h, v in root], closed=True))
    return outlines


def _airway(canvas: Canvas, anatomy: Anatomy) -> Grid:
    """Air column of the trachea and the two main bronchi."""
    fork = anatomy.apex_y + 0.225
    x = 0.495 + 0.4 * anatomy.heart_shift
    trachea = np.array([(x + 0.003, -0.4), (x, 0.05), (x - 0.002, fork)])
    bronchi = [np.array([(x, fork - 0.01), (x + s * 0.08, fork + 0.07)]) for s in SIDES]
    shapes = [(ribbon(trachea, 0.0165), 255), *((ribbon(b, 0.010), 150) for b in bronchi)]
    return 0.11 * canvas.paint(shapes, 0.004)


def _breasts(canvas: Canvas, anatomy: Anatomy) -> Grid:
    """Two shadows that thicken downwards and end in a crisp lower fold."""
    total = np.zeros_like(canvas.x)
    if anatomy.breast == 0:
        return total
    size = anatomy.breast
    for side in SIDES:
        y = anatomy.lung_y(0.72, side) + 0.03 * size
        r = canvas.blob(0.5 + side * 0.215, y, 0.11 + 0.075 * size, 0.10 + 0.075 * size)
        low = smoothstep((canvas.y - np.float32(y - 0.16)) / 0.25)
        total += np.sqrt(np.clip(1 - r, 0, 1)) * low
    return total * np.float32(0.10 + 0.10 * size)


def _gas(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Grid:
    """Stomach bubble under the left dome, and a few loops of bowel gas below."""
    top = anatomy.dome_y(1)
    width = 0.075 * anatomy.gas_bubble
    stomach = canvas.blob(0.5 + 0.17, top + 0.055, width, 0.4 * width + 0.004)
    gas = 0.22 * smoothstep(1.25 - stomach)
    for _ in range(int(rng.integers(1, 5))):
        x, y = 0.5 + rng.uniform(0.02, 0.3), top + rng.uniform(0.12, 0.35)
        loop = canvas.blob(x, y, rng.uniform(0.015, 0.05), rng.uniform(0.012, 0.03))
        gas += 0.10 * smoothstep(1.2 - loop)
    return gas


def _vessels(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Grid:
    """Branching tree from each hilum, drawn thin to thick so that trunks stay on top."""
    fan = np.linspace(-1.4, 1.5, 8)
    side = np.repeat(SIDES, len(fan))
    angle = np.tile(fan, 2) + rng.normal(0, 0.14, len(side))
    start = np.stack([0.5 + side * 0.055, anatomy.apex_y + 0.28 + 0.05 * np.sin(angle)], axis=1)
    width = rng.uniform(0.0026, 0.0042, len(side))
    shapes: list[tuple[Points, int]] = []
    for _ in range(VESSEL_GENERATIONS):
        line, angle = _grow(start, side, angle, width, rng)
        taper = width[:, None] * np.array([1.0, 0.9, 0.8])
        levels = np.clip(42000 * width + 22, 0, 170).astype(int).tolist()
        shapes = [*zip(_outlines(line, taper), levels, strict=True), *shapes]
        start, side = np.repeat(line[:, 2], 2, axis=0), np.repeat(side, 2)
        turn = np.tile((-1.0, 1.0), len(line)) * rng.uniform(0.1, 0.55, 2 * len(line))
        angle = np.repeat(angle, 2) + turn
        width = np.repeat(width, 2) * rng.uniform(0.58, 0.84, 2 * len(line))
    haze = 0.012 * np.abs(canvas.clouds(rng, 110))
    return as_grid(0.17 * canvas.paint(shapes, 0.0008) + haze)


def _grow(
    start: Points, side: Vector, angle: Vector, width: Vector, rng: np.random.Generator
) -> tuple[Points, Vector]:
    """Return B bent vessels as (B, 3, 2) points, and the (B,) angle at their ends.

    An angle of 0 points at the chest wall, a negative one up.
    """
    half = (0.5 * (width * rng.uniform(9, 18, len(width)) + 0.017))[:, None]
    bend = angle + rng.normal(0, 0.3, len(angle))
    middle = start + half * np.stack([side * np.cos(angle), np.sin(angle)], axis=1)
    end = middle + half * np.stack([side * np.cos(bend), np.sin(bend)], axis=1)
    return np.stack([start, middle, end], axis=1), bend


def _outlines(line: Points, half_width: Points) -> list[Points]:
    """Return the (6, 2) outlines of B bands around (B, 3, 2) lines, all at once for speed."""
    along = line[:, 2] - line[:, 0]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)[:, None, :]
    offset = normal * half_width[:, :, None]
    return list(np.concatenate([line + offset, (line - offset)[:, ::-1]], axis=1))


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
    # The lowest ribs lie behind the abdomen, where an image shows them least.
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
