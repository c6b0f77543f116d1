"""The measures of one patient's chest in one image, and how findings change them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cxrmodel.phantom.canvas import Frame, Points, smooth_curve
from cxrmodel.phantom.population import ImageSpec

LUNG_OUTLINE = (
    # (half-width, height) of the right lung: 0 is the spine, height 0 the apex and 1 the base.
    *((0.125, 0.0), (0.19, 0.045), (0.25, 0.17), (0.29, 0.35), (0.32, 0.55), (0.338, 0.75)),
    *((0.348, 0.93), (0.345, 1.0), (0.30, 1.04), (0.18, 1.05), (0.03, 1.05)),
    *((0.025, 0.8), (0.025, 0.5), (0.03, 0.27), (0.05, 0.1), (0.085, 0.02)),
)
HEART_OUTLINE = (
    # (x right of the spine in the image, y below the level of the domes).
    *((0.0, -0.31), (0.04, -0.295), (0.074, -0.245), (0.122, -0.185), (0.165, -0.11)),
    *((0.187, -0.04), (0.178, 0.015), (0.13, 0.055), (0.0, 0.08), (-0.06, 0.05)),
    *((-0.088, -0.03), (-0.094, -0.11), (-0.078, -0.18), (-0.048, -0.24)),
)


@dataclass(frozen=True)
class Anatomy:
    """Lengths as fractions of the image's side; pairs are (viewer's left, viewer's right)."""

    lung_width: float
    apex_y: float
    base_y: tuple[float, float]
    dome_height: tuple[float, float]
    heart_scale: float
    heart_shift: float
    body_half_width: float
    body_depth: float
    air: float
    breast: float
    arm_spread: float
    scapula_inset: float
    clavicle_y: float
    gas_bubble: float
    bone: float
    frame: Frame

    def side(self, pair: tuple[float, float], side: int) -> float:
        """Pick the value of a pair for `side` -1 or +1."""
        return pair[0] if side < 0 else pair[1]

    def lung_y(self, height: float, side: int) -> float:
        """Return y at a height of 0 (apex) to 1 (costophrenic angle)."""
        return self.apex_y + height * (self.side(self.base_y, side) - self.apex_y)

    def wall(self, height: float) -> float:
        """Return the distance from the spine to the chest wall at a height of 0 to 1."""
        lateral = LUNG_OUTLINE[:8]
        heights, widths = [p[1] for p in lateral], [p[0] for p in lateral]
        return self.lung_width * float(np.interp(height, heights, widths))

    def in_lung(self, across: float, height: float, side: int) -> tuple[float, float]:
        """Return (x, y) at a part 0..1 of the way from spine to wall, at a height 0..1."""
        return 0.5 + side * across * self.wall(height), self.lung_y(height, side)

    def lung_outline(self, side: int) -> Points:
        """Return the closed outline of a lung, down behind the diaphragm."""
        points = [(0.5 + side * self.lung_width * h, self.lung_y(w, side)) for h, w in LUNG_OUTLINE]
        return smooth_curve(points, closed=True)

    def dome_y(self, side: int) -> float:
        """Return y of the top of a diaphragm dome."""
        return self.side(self.base_y, side) - self.side(self.dome_height, side)

    def heart_outline(self) -> Points:
        """Return the closed outline of the heart, resting on the left dome."""
        level = self.dome_y(1) + 0.015
        points = [
            (0.5 + self.heart_shift + x * self.heart_scale, level + y * self.heart_scale**0.45)
            for x, y in HEART_OUTLINE
        ]
        return smooth_curve(points, closed=True)


def sample_anatomy(spec: ImageSpec) -> Anatomy:
    """Draw the chest of an image: the body from its patient, the pose from the image itself.

    Args:
        spec: The image to draw.

    Returns:
        Measures that already include what its findings do to the shape of the chest.
    """
    body, pose = spec.body_rng(0), spec.image_rng(0)
    lying = spec.view == "AP"
    heavy = body.normal()
    base = 0.735 + body.normal(0, 0.022) + pose.normal(0, 0.01) - 0.012 * heavy
    base -= (0.055 + abs(pose.normal(0, 0.03))) if lying else 0.0
    dome = 0.105 + body.normal(0, 0.012)
    drop = 0.022 + body.normal(0, 0.006)
    anatomy = Anatomy(
        lung_width=1.0 + body.normal(0, 0.04) - (0.03 if spec.sex == "F" else 0.0),
        apex_y=0.11 + body.normal(0, 0.018) + (0.015 if lying else 0.0),
        base_y=(base, base + 0.5 * drop),
        dome_height=(dome, dome - 0.5 * drop),
        heart_scale=(1.04 + body.normal(0, 0.06)) * (1.15 if lying else 1.0),
        heart_shift=body.normal(0, 0.006) + pose.normal(0, 0.004),
        body_half_width=max(0.445 + 0.035 * heavy + body.normal(0, 0.012), 0.41),
        body_depth=1.0 + 0.07 * heavy,
        air=1.0,
        breast=float(body.uniform(0.5, 1.15)) if spec.sex == "F" else 0.0,
        arm_spread=pose.uniform(0.0, 0.5) if lying else pose.uniform(0.08, 0.9),
        scapula_inset=pose.uniform(0.035, 0.075) if lying else pose.uniform(-0.02, 0.02),
        clavicle_y=body.normal(0, 0.012) - (0.02 if lying else 0.0),
        gas_bubble=float(body.uniform(0.3, 1.0)),
        bone=float(np.clip(1.1 - 0.004 * max(spec.age - 40, 0) + body.normal(0, 0.08), 0.75, 1.3)),
        frame=_sample_frame(spec, pose),
    )
    return _reshape(anatomy, spec)


def _sample_frame(spec: ImageSpec, pose: np.random.Generator) -> Frame:
    lying = spec.view == "AP"
    young = max(0, 16 - spec.age) * 0.006
    return Frame(
        angle_rad=pose.normal(0, 0.035 if lying else 0.018),
        zoom=float(np.clip(1.02 - young + pose.normal(0, 0.045), 0.84, 1.16)),
        shift=(pose.normal(0, 0.018), pose.normal(0.0, 0.018)),
    )


def _reshape(anatomy: Anatomy, spec: ImageSpec) -> Anatomy:
    """Apply the findings that change shapes rather than add a shadow."""
    if "Cardiomegaly" in spec.findings:
        grown = anatomy.heart_scale * (1.38 + spec.body_rng(1).uniform(0, 0.14))
        shift = anatomy.heart_shift + 0.008
        anatomy = replace(anatomy, heart_scale=min(grown, 1.75), heart_shift=shift)
    if "Emphysema" in spec.findings:
        left, right = anatomy.base_y
        anatomy = replace(
            anatomy,
            base_y=(left + 0.075, right + 0.075),
            dome_height=(0.035, 0.028),
            heart_scale=anatomy.heart_scale * 0.8,
            lung_width=anatomy.lung_width * 1.05,
            air=1.28,
        )
    return anatomy


def pull(anatomy: Anatomy, side: int, *, lift: float, shift: float) -> Anatomy:
    """Lift one dome and move the heart sideways, as lost or gained lung volume does.

    Args:
        anatomy: The chest before.
        side: Side of the dome.
        lift: Rise of the dome; negative flattens it.
        shift: Movement of the heart towards the viewer's right.
    """
    heights: Sequence[float] = anatomy.dome_height
    left, right = (h + lift * (s == side) for h, s in zip(heights, (-1, 1), strict=True))
    return replace(anatomy, dome_height=(left, right), heart_shift=anatomy.heart_shift + shift)
