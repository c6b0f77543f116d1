"""Where the findings of a film sit, and the boxes around them."""

from dataclasses import dataclass

import numpy as np

from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.phantom.anatomy import Anatomy, pull
from cxrmodel.phantom.canvas import Frame
from cxrmodel.phantom.spec import BOXED_FINDINGS, FilmSpec


@dataclass(frozen=True)
class Site:
    """One shadow: an ellipse in patient coordinates, and how dense it is (about 1)."""

    finding: str
    side: int
    x: float
    y: float
    rx: float
    ry: float
    strength: float


Span = tuple[float, float]
REGIONS: dict[str, tuple[int, Span, Span, Span]] = {
    # finding: (most sites, across the lung, down the lung, radius), the last three as ranges
    "Consolidation": (1, (0.45, 0.62), (0.35, 0.75), (0.105, 0.14)),
    "Pneumonia": (2, (0.45, 0.65), (0.45, 0.78), (0.075, 0.105)),
    "Infiltration": (2, (0.45, 0.60), (0.40, 0.72), (0.12, 0.16)),
    "Nodule": (2, (0.42, 0.75), (0.22, 0.68), (0.013, 0.024)),
    "Mass": (1, (0.45, 0.68), (0.22, 0.68), (0.045, 0.075)),
    "Atelectasis": (1, (0.45, 0.55), (0.70, 0.78), (0.115, 0.13)),
}
"""Findings that take a random place in a lung."""


def place_sites(spec: FilmSpec, anatomy: Anatomy) -> list[Site]:
    """Choose where the findings of a film sit.

    The place comes from the patient, so that a finding stays where it is over the follow-ups;
    its density comes from the film.

    Args:
        spec: The film.
        anatomy: Its chest.

    Returns:
        One to two sites a finding, in the order of `PATHOLOGIES`.
    """
    sites: list[Site] = []
    for stream, finding in enumerate(PATHOLOGIES, start=10):
        if finding in spec.findings:
            body = spec.body_rng(stream)
            strength = float(spec.film_rng(stream).uniform(0.85, 1.15))
            sites += _place(finding, anatomy, body, strength)
    return sites


def _place(
    finding: str, anatomy: Anatomy, body: np.random.Generator, strength: float
) -> list[Site]:
    side = int(body.choice((-1, 1)))
    if finding not in REGIONS:
        return [_fixed_site(finding, anatomy, side, float(body.uniform(0, 1)), strength)]
    most, *spans = REGIONS[finding]
    sites = []
    for number in range(int(body.integers(1, most + 1))):
        across, height, radius = (body.uniform(*span) for span in spans)
        here = side if number == 0 else -side
        x, y = anatomy.in_lung(across, height, here)
        # Scaled with the lung, so that a shadow never leaves a small one.
        radius *= anatomy.lung_width * (anatomy.base_y[0] - anatomy.apex_y) / 0.62
        aspect = {"Atelectasis": 0.4, "Mass": 0.95, "Nodule": 1.0}.get(finding, 1.2)
        sites.append(Site(finding, here, x, y, radius, radius * aspect, strength))
    return sites


def _fixed_site(finding: str, anatomy: Anatomy, side: int, amount: float, strength: float) -> Site:
    """Place a finding that has one possible place a side; `amount` 0..1 is how much of it."""
    if finding == "Cardiomegaly":
        low, high = anatomy.heart_outline().min(axis=0), anatomy.heart_outline().max(axis=0)
        x, y = (low + high) / 2
        rx, ry = (high - low) / 2
        return Site(finding, 1, x, y, rx, ry, strength)
    if finding == "Effusion":
        tall = 0.17 + 0.20 * amount
        bottom = anatomy.side(anatomy.base_y, side)
        half = 0.40 * anatomy.wall(0.9)
        x, _ = anatomy.in_lung(0.6, 0.9, side)
        return Site(finding, side, x, bottom - tall / 2, half, tall / 2, strength)
    if finding in ("Pneumothorax", "Pleural_Thickening"):
        x, y = anatomy.in_lung(0.6, 0.30, side)
        return Site(finding, side, x, y, 0.4 * anatomy.wall(0.5), 0.2, 0.4 + 0.6 * amount)
    if finding == "Hernia":
        radius = 0.06 + 0.02 * amount
        x = 0.5 + 0.035 + 0.02 * amount
        return Site(finding, 1, x, anatomy.dome_y(1) - 0.035, radius, radius * 0.95, strength)
    return Site(finding, side, 0.5, anatomy.lung_y(0.5, 1), 0.3, 0.3, strength)


def shift_anatomy(anatomy: Anatomy, sites: list[Site]) -> Anatomy:
    """Move domes and heart as lost (atelectasis) or trapped (pneumothorax) volume does."""
    for site in sites:
        if site.finding == "Atelectasis":
            anatomy = pull(anatomy, site.side, lift=0.05, shift=0.018 * site.side)
        elif site.finding == "Pneumothorax":
            anatomy = pull(anatomy, site.side, lift=-0.02, shift=-0.012 * site.side)
    return anatomy


def boxes(sites: list[Site], frame: Frame, size_px: int) -> list[tuple[str, tuple[float, ...]]]:
    """Frame the sites of the 8 findings that NIH located.

    Args:
        sites: Sites of a film.
        frame: Where the patient stands on it.
        size_px: Side of the film, pixels.

    Returns:
        (finding, (x, y, width, height)) in pixels of the film, inside it.
    """
    found = []
    for site in sites:
        if site.finding in BOXED_FINDINGS:
            turn = np.linspace(0, 2 * np.pi, 32)
            ring = [(site.x + site.rx * np.cos(t), site.y + site.ry * np.sin(t)) for t in turn]
            film = np.clip(frame.to_film(np.array(ring)), 0, 1) * size_px
            low, high = film.min(axis=0), film.max(axis=0)
            found.append((site.finding, (*low.tolist(), *(high - low).tolist())))
    return found
