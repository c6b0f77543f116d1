"""The 14 findings: where they sit in a chest, the boxes around them, and their shadows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.phantom.anatomy import Anatomy, pull
from cxrmodel.phantom.body import Tissue
from cxrmodel.phantom.canvas import (
    Canvas,
    Frame,
    Grid,
    Points,
    as_grid,
    ribbon,
    smooth_curve,
    smoothstep,
)
from cxrmodel.phantom.population import ImageSpec

BOXED_FINDINGS = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Effusion": "Effusion",
    "Infiltration": "Infiltrate",
    "Mass": "Mass",
    "Nodule": "Nodule",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
"""The 8 pathologies that `BBox_List_2017.csv` locates, and its own spelling of each."""


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


def place_sites(spec: ImageSpec, anatomy: Anatomy) -> list[Site]:
    """Choose where the findings of an image sit.

    The place comes from the patient, so that a finding stays where it is over the follow-ups;
    its density comes from the image.

    Args:
        spec: The image.
        anatomy: Its chest.

    Returns:
        One to two sites per finding, in the order of `PATHOLOGIES`.
    """
    sites: list[Site] = []
    for stream, finding in enumerate(PATHOLOGIES, start=10):
        if finding in spec.findings:
            body = spec.body_rng(stream)
            strength = float(spec.image_rng(stream).uniform(0.85, 1.15))
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
    """Place a finding that has one possible place per side; `amount` 0..1 is how much of it."""
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
        sites: Sites of an image.
        frame: Where the patient stands in it.
        size_px: Side of the image in pixels.

    Returns:
        (finding, (x, y, width, height)) in pixels, inside the image.
    """
    found = []
    for site in sites:
        if site.finding in BOXED_FINDINGS:
            turn = np.linspace(0, 2 * np.pi, 32)
            ring = [(site.x + site.rx * np.cos(t), site.y + site.ry * np.sin(t)) for t in turn]
            points = np.clip(frame.to_image(np.array(ring)), 0, 1) * size_px
            low, high = points.min(axis=0), points.max(axis=0)
            found.append((site.finding, (*low.tolist(), *(high - low).tolist())))
    return found


@dataclass(frozen=True)
class Chest:
    """What a finding is drawn into.

    Attributes:
        canvas: Grid of N x N pixels.
        anatomy: Measures of the chest.
        tissue: Its maps, which are changed in place.
        rng: Source of textures.
    """

    canvas: Canvas
    anatomy: Anatomy
    tissue: Tissue
    rng: np.random.Generator

    def lung(self, site: Site) -> Grid:
        """Return the coverage of the lung on the site's side."""
        return self.tissue.lung[0] if site.side < 0 else self.tissue.lung[1]

    def distance(self, site: Site) -> Grid:
        """Return (N, N) float32, 0 at the centre of a site and 1 at its edge."""
        return as_grid(np.sqrt(self.canvas.blob(site.x, site.y, site.rx, site.ry)))

    def clouds(self, cells: int) -> Grid:
        """Return a smooth random field, see `Canvas.clouds`."""
        return self.canvas.clouds(self.rng, cells)

    def ragged(self, site: Site, cells: int, rough: float) -> Grid:
        """Return 1 in the site, falling to 0 at an irregular edge."""
        return smoothstep(1.55 - 1.1 * self.distance(site) + np.float32(rough) * self.clouds(cells))

    def draw(self, sites: list[Site]) -> None:
        """Draw the findings at their sites, in place."""
        for site in sites:
            if site.finding in DRAW:
                DRAW[site.finding](self, site)


def _consolidation(chest: Chest, site: Site) -> None:
    """Dense patch of about one lobe, with an irregular edge."""
    patch = chest.ragged(site, 14, 0.22)
    chest.tissue.opacify(patch * np.float32(0.86 * site.strength) * chest.lung(site))
    chest.tissue.body += 0.05 * patch * chest.lung(site)


def _pneumonia(chest: Chest, site: Site) -> None:
    """Patches of several sizes that run together."""
    patch = chest.ragged(site, 16, 0.38)
    holes = 0.45 + 0.55 * smoothstep(0.7 + 0.45 * chest.clouds(40))
    chest.tissue.opacify(patch * holes * np.float32(0.78 * site.strength) * chest.lung(site))


def _infiltration(chest: Chest, site: Site) -> None:
    """Haze with a fine net of lines."""
    haze = chest.ragged(site, 9, 0.25) * chest.lung(site) * chest.tissue.aerated()
    chest.tissue.air *= 1 - haze * np.float32(0.40 * site.strength)
    net = np.exp(-30 * chest.clouds(70) ** 2)
    chest.tissue.body += 0.07 * site.strength * haze * net


def _nodule(chest: Chest, site: Site) -> None:
    r = chest.canvas.blob(site.x, site.y, site.rx, site.ry)
    chest.tissue.body += np.float32(0.21 * site.strength) * np.sqrt(smoothstep(1.1 - r))


def _mass(chest: Chest, site: Site) -> None:
    """Lobed ball with short spicules into the lung around it."""
    r = chest.distance(site) + 0.07 * chest.clouds(22)
    ball = smoothstep((1.12 - r) / 0.45)
    chest.tissue.body += np.float32(0.34 * site.strength) * ball
    rays = []
    for turn in np.linspace(0, 2 * np.pi, 22, endpoint=False) + chest.rng.normal(0, 0.1, 22):
        reach = chest.rng.uniform(1.1, 1.55)
        ends = [
            (site.x + k * site.rx * np.cos(turn), site.y + k * site.ry * np.sin(turn))
            for k in (0.8, reach)
        ]
        rays.append(ribbon(np.array(ends), np.array([0.003, 0.0008])))
    chest.tissue.body += 0.10 * chest.canvas.fill(rays, 0.001) * (1 - ball)


def _atelectasis(chest: Chest, site: Site) -> None:
    """Plate-like lines above a raised dome, and a wedge that widens towards the hilum."""
    x, y, side = site.x, site.y, site.side
    wedge = np.array(
        [
            (0.5 + side * 0.05, y - 0.13),
            (x + side * site.rx * 0.8, y + site.ry * 0.9),
            (0.5 + side * 0.05, y + site.ry * 1.6),
        ]
    )
    chest.tissue.opacify(
        0.55 * site.strength * chest.canvas.fill([wedge], 0.012) * chest.lung(site)
    )
    lines = []
    for offset in (-0.03, 0.005, 0.035):
        tilt = chest.rng.normal(0, 0.012)
        ends = [
            (x - site.rx, y + offset - side * tilt),
            (x, y + offset - 0.006),
            (x + site.rx, y + offset + side * tilt),
        ]
        lines.append(ribbon(smooth_curve(ends, closed=False), chest.rng.uniform(0.003, 0.006)))
    chest.tissue.body += (
        0.19 * site.strength * chest.canvas.fill(lines, 0.0015) * chest.tissue.aerated()
    )


def _effusion(chest: Chest, site: Site) -> None:
    """Fluid that climbs along the wall: a meniscus, and no costophrenic angle."""
    out = np.clip(np.abs(chest.canvas.x - 0.5) / np.float32(chest.anatomy.wall(0.85)), 0, 1.2)
    top = np.float32(site.y - site.ry + 0.085) - np.float32(0.15) * out**5
    medial = smoothstep((np.float32(site.side) * (chest.canvas.x - 0.5) - 0.02) / 0.1)
    fluid = smoothstep((chest.canvas.y - top) / 0.06) * medial
    chest.tissue.opacify(fluid * np.float32(0.97))
    chest.tissue.body += 0.12 * fluid * chest.lung(site)


def _pneumothorax(chest: Chest, site: Site) -> None:
    """Lung shrunk from the wall: a bright pleural line, black and empty outside it."""
    rest = _shrunken_lung(chest.anatomy, site)
    inside = chest.canvas.fill([rest], 0.0015)
    outside = chest.lung(site) * (1 - inside)
    chest.tissue.vessels *= 1 - outside
    chest.tissue.air *= 1 + 0.30 * outside - 0.13 * inside * chest.lung(site)
    edge = chest.canvas.fill([ribbon(np.concatenate([rest, rest[:1]]), 0.0022)], 0.0008)
    chest.tissue.body += 0.11 * edge * chest.tissue.aerated()


def _shrunken_lung(anatomy: Anatomy, site: Site) -> Points:
    outline = anatomy.lung_outline(site.side)
    half = np.abs(outline[:, 0] - 0.5)
    height = (outline[:, 1] - anatomy.apex_y) / (anatomy.lung_y(1, site.side) - anatomy.apex_y)
    gap = (0.045 + 0.05 * site.strength) * np.clip(1.15 - 0.75 * height, 0, 1.2)
    half = np.maximum(half - gap, np.minimum(half, 0.05))
    y = outline[:, 1] + (0.05 + 0.07 * site.strength) * np.clip(1 - 2.2 * height, 0, 1)
    return np.stack([0.5 + site.side * half, y], axis=1)


def _edema(chest: Chest, site: Site) -> None:
    """Butterfly of haze about both hila, clear at the rim, with vessels blurred."""
    mottle = 1 + 0.13 * chest.clouds(90) + 0.14 * chest.clouds(12)
    for side in (-1, 1):
        x, y = chest.anatomy.in_lung(0.36, 0.54, side)
        r = np.sqrt(chest.canvas.blob(x, y, 0.135, 0.20))
        wing = smoothstep(1.5 - r + 0.10 * chest.clouds(12)) * mottle
        chest.tissue.opacify(0.72 * site.strength * wing)


def _fibrosis(chest: Chest, site: Site) -> None:
    """Coarse net of lines at both bases and along the wall."""
    net = np.exp(-9 * chest.clouds(52) ** 2) + 0.7 * np.exp(-12 * chest.clouds(84) ** 2)
    low = smoothstep((chest.canvas.y - np.float32(chest.anatomy.lung_y(0.38, 1))) / 0.22)
    out = np.clip(np.abs(chest.canvas.x - 0.5) / 0.3, 0, 1)
    area = low * (0.45 + 0.55 * out) * chest.tissue.aerated()
    chest.tissue.body += 0.15 * site.strength * area * net
    chest.tissue.air *= 1 - 0.22 * area


def _thickening(chest: Chest, site: Site) -> None:
    """Band between lung and wall, thickest at the apex and irregular."""
    outline = chest.anatomy.lung_outline(site.side)
    inner = outline.copy()
    thick = (0.02 + 0.02 * site.strength) * (1 + 0.3 * np.sin(np.linspace(0, 25, len(inner))))
    inner[:, 0] -= site.side * thick * np.clip(np.abs(inner[:, 0] - 0.5) / 0.06 - 1.4, 0, 1)
    apical = np.clip((chest.anatomy.apex_y + 0.14 - inner[:, 1]) / 0.1, 0, 1)
    inner[:, 1] += 1.1 * thick * apical
    band = chest.lung(site) * (1 - chest.canvas.fill([inner], 0.003))
    band = band * smoothstep(np.abs(chest.canvas.x - 0.5) / 0.05 - 1.6)
    chest.tissue.opacify(0.6 * band)
    chest.tissue.body += 0.10 * band


def _hernia(chest: Chest, site: Site) -> None:
    """Round stomach behind the heart: gas above, fluid below a flat level."""
    r = chest.distance(site)
    ball = smoothstep((1.08 - r) / 0.22)
    level = smoothstep((chest.canvas.y - np.float32(site.y + 0.1 * site.ry)) / 0.006)
    cavity = smoothstep((0.86 - r) / 0.16) * (1 - level)
    chest.tissue.body += 0.15 * site.strength * ball - 0.28 * cavity


DRAW: dict[str, Callable[[Chest, Site], None]] = {
    "Atelectasis": _atelectasis,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Effusion": _effusion,
    "Fibrosis": _fibrosis,
    "Hernia": _hernia,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pleural_Thickening": _thickening,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
}
"""Cardiomegaly and Emphysema are absent: they are shapes of the chest, not shadows in it."""
