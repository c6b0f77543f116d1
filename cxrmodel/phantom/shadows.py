"""The shadows of the 14 findings: what each one does to the tissue of a film."""

from collections.abc import Callable

import numpy as np

from cxrmodel.phantom.anatomy import Anatomy
from cxrmodel.phantom.canvas import Canvas, Grid, Points, ribbon, smooth_curve, smoothstep
from cxrmodel.phantom.sites import Site
from cxrmodel.phantom.tissue import Tissue


def draw_findings(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, sites: list[Site], rng: np.random.Generator
) -> None:
    """Draw the sites into the maps of a film, in place."""
    for site in sites:
        if site.finding in DRAW:
            DRAW[site.finding](canvas, anatomy, tissue, site, rng)


def _lung(tissue: Tissue, site: Site) -> Grid:
    return tissue.lung[0] if site.side < 0 else tissue.lung[1]


def _ragged(canvas: Canvas, site: Site, rng: np.random.Generator, cells: int, rough: float) -> Grid:
    """Return 1 in the site falling to 0 at an irregular edge."""
    r = np.sqrt(canvas.blob(site.x, site.y, site.rx, site.ry))
    return smoothstep(1.55 - 1.1 * r + np.float32(rough) * canvas.clouds(rng, cells))


def _consolidation(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Dense patch of about one lobe, with an irregular edge."""
    patch = _ragged(canvas, site, rng, 14, 0.22)
    tissue.opacify(patch * np.float32(0.86 * site.strength) * _lung(tissue, site))
    tissue.body += 0.05 * patch * _lung(tissue, site)


def _pneumonia(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Patches of several sizes that run together."""
    patch = _ragged(canvas, site, rng, 16, 0.38)
    holes = 0.45 + 0.55 * smoothstep(0.7 + 0.45 * canvas.clouds(rng, 40))
    tissue.opacify(patch * holes * np.float32(0.78 * site.strength) * _lung(tissue, site))


def _infiltration(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Haze with a fine net of lines."""
    haze = _ragged(canvas, site, rng, 9, 0.25) * _lung(tissue, site) * tissue.aerated()
    tissue.air *= 1 - haze * np.float32(0.40 * site.strength)
    net = np.exp(-30 * canvas.clouds(rng, 70) ** 2)
    tissue.body += 0.07 * site.strength * haze * net


def _nodule(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    r = canvas.blob(site.x, site.y, site.rx, site.ry)
    tissue.body += np.float32(0.21 * site.strength) * np.sqrt(smoothstep(1.1 - r))


def _mass(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Lobed ball with short spicules into the lung around it."""
    r = np.sqrt(canvas.blob(site.x, site.y, site.rx, site.ry)) + 0.07 * canvas.clouds(rng, 22)
    ball = smoothstep((1.12 - r) / 0.45)
    tissue.body += np.float32(0.34 * site.strength) * ball
    rays = []
    for turn in np.linspace(0, 2 * np.pi, 22, endpoint=False) + rng.normal(0, 0.1, 22):
        reach = rng.uniform(1.1, 1.55)
        ends = [
            (site.x + k * site.rx * np.cos(turn), site.y + k * site.ry * np.sin(turn))
            for k in (0.8, reach)
        ]
        rays.append(ribbon(np.array(ends), np.array([0.003, 0.0008])))
    tissue.body += 0.10 * canvas.fill(rays, 0.001) * (1 - ball)


def _atelectasis(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Plate-like lines above a raised dome, and a wedge that widens towards the hilum."""
    x, y, side = site.x, site.y, site.side
    wedge = np.array(
        [
            (0.5 + side * 0.05, y - 0.13),
            (x + side * site.rx * 0.8, y + site.ry * 0.9),
            (0.5 + side * 0.05, y + site.ry * 1.6),
        ]
    )
    tissue.opacify(0.55 * site.strength * canvas.fill([wedge], 0.012) * _lung(tissue, site))
    lines = []
    for offset in (-0.03, 0.005, 0.035):
        tilt = rng.normal(0, 0.012)
        ends = [
            (x - site.rx, y + offset - side * tilt),
            (x, y + offset - 0.006),
            (x + site.rx, y + offset + side * tilt),
        ]
        lines.append(ribbon(smooth_curve(ends, closed=False), rng.uniform(0.003, 0.006)))
    tissue.body += 0.19 * site.strength * canvas.fill(lines, 0.0015) * tissue.aerated()


def _effusion(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Fluid that climbs along the wall: a meniscus, and no costophrenic angle."""
    out = np.clip(np.abs(canvas.x - 0.5) / np.float32(anatomy.wall(0.85)), 0, 1.2)
    top = np.float32(site.y - site.ry + 0.085) - np.float32(0.15) * out**5
    medial = smoothstep((np.float32(site.side) * (canvas.x - 0.5) - 0.02) / 0.1)
    fluid = smoothstep((canvas.y - top) / 0.06) * medial
    tissue.opacify(fluid * np.float32(0.97))
    tissue.body += 0.12 * fluid * _lung(tissue, site)


def _pneumothorax(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Lung shrunk from the wall: a bright pleural line, black and empty outside it."""
    rest = _shrunken_lung(anatomy, site)
    inside = canvas.fill([rest], 0.0015)
    outside = _lung(tissue, site) * (1 - inside)
    tissue.vessels *= 1 - outside
    tissue.air *= 1 + 0.30 * outside - 0.13 * inside * _lung(tissue, site)
    edge = canvas.fill([ribbon(np.concatenate([rest, rest[:1]]), 0.0022)], 0.0008)
    tissue.body += 0.11 * edge * tissue.aerated()


def _shrunken_lung(anatomy: Anatomy, site: Site) -> Points:
    outline = anatomy.lung_outline(site.side)
    half = np.abs(outline[:, 0] - 0.5)
    height = (outline[:, 1] - anatomy.apex_y) / (anatomy.lung_y(1, site.side) - anatomy.apex_y)
    gap = (0.045 + 0.05 * site.strength) * np.clip(1.15 - 0.75 * height, 0, 1.2)
    half = np.maximum(half - gap, np.minimum(half, 0.05))
    y = outline[:, 1] + (0.05 + 0.07 * site.strength) * np.clip(1 - 2.2 * height, 0, 1)
    return np.stack([0.5 + site.side * half, y], axis=1)


def _edema(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Butterfly of haze about both hila, clear at the rim, with vessels blurred."""
    mottle = 1 + 0.13 * canvas.clouds(rng, 90) + 0.14 * canvas.clouds(rng, 12)
    for side in (-1, 1):
        x, y = anatomy.in_lung(0.36, 0.54, side)
        r = np.sqrt(canvas.blob(x, y, 0.135, 0.20))
        wing = smoothstep(1.5 - r + 0.10 * canvas.clouds(rng, 12)) * mottle
        tissue.opacify(0.72 * site.strength * wing)


def _fibrosis(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Coarse net of lines at both bases and along the wall."""
    net = np.exp(-9 * canvas.clouds(rng, 52) ** 2) + 0.7 * np.exp(-12 * canvas.clouds(rng, 84) ** 2)
    low = smoothstep((canvas.y - np.float32(anatomy.lung_y(0.38, 1))) / 0.22)
    out = np.clip(np.abs(canvas.x - 0.5) / 0.3, 0, 1)
    area = low * (0.45 + 0.55 * out) * tissue.aerated()
    tissue.body += 0.15 * site.strength * area * net
    tissue.air *= 1 - 0.22 * area


def _thickening(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Band between lung and wall, thickest at the apex and irregular."""
    outline = anatomy.lung_outline(site.side)
    inner = outline.copy()
    thick = (0.02 + 0.02 * site.strength) * (1 + 0.3 * np.sin(np.linspace(0, 25, len(inner))))
    inner[:, 0] -= site.side * thick * np.clip(np.abs(inner[:, 0] - 0.5) / 0.06 - 1.4, 0, 1)
    apical = np.clip((anatomy.apex_y + 0.14 - inner[:, 1]) / 0.1, 0, 1)
    inner[:, 1] += 1.1 * thick * apical
    band = _lung(tissue, site) * (1 - canvas.fill([inner], 0.003))
    band = band * smoothstep(np.abs(canvas.x - 0.5) / 0.05 - 1.6)
    tissue.opacify(0.6 * band)
    tissue.body += 0.10 * band


def _hernia(
    canvas: Canvas, anatomy: Anatomy, tissue: Tissue, site: Site, rng: np.random.Generator
) -> None:
    """Round stomach behind the heart: gas above, fluid below a flat level."""
    r = np.sqrt(canvas.blob(site.x, site.y, site.rx, site.ry))
    ball = smoothstep((1.08 - r) / 0.22)
    level = smoothstep((canvas.y - np.float32(site.y + 0.1 * site.ry)) / 0.006)
    cavity = smoothstep((0.86 - r) / 0.16) * (1 - level)
    tissue.body += 0.15 * site.strength * ball - 0.28 * cavity


Draw = Callable[[Canvas, Anatomy, Tissue, Site, np.random.Generator], None]
DRAW: dict[str, Draw] = {
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
