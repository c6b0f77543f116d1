"""Test images to show, their reconstructions and the absolute error between them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.audit.localisation import Fit, boxes_on_square
from cxrmodel.evaluation.resolution import shrink
from cxrmodel.report.figures.theme import SMALL_PT, WIDTH_IN, Theme, new_figure, place
from cxrmodel.report.run import RunTables

MAX_COLUMNS = 6
MAX_PANEL_IN = 2.6
PANEL_PX = 512  # more than a panel has, and all that is kept of an image
LEFT_IN, RIGHT_IN, TOP_IN, BAND_GAP_IN, GAP_IN = 0.3, 0.86, 0.42, 0.62, 0.06
ERROR_PERCENTILE = 99.5
ERROR_MAP = "magma"
BOX = "#00e5ff"  # in no film and no error map
ROWS = ("Original", "Reconstruction", "|Error|")


@dataclass(frozen=True)
class Examples:
    """Drawn test images, E of them.

    Attributes:
        chosen: E names of images, why they are shown, and boxes to draw.
        originals: (E, s, s), float32 in [0, 1].
        reconstructions: (E, s, s), float32 in [0, 1].
        errors: (E, s, s), float32, absolute, averaged over the area of a pixel.
        l1: (E,), mean absolute error at full size.
    """

    chosen: list[Chosen]
    originals: NDArray[np.float32]
    reconstructions: NDArray[np.float32]
    errors: NDArray[np.float32]
    l1: NDArray[np.float64]


def error_limit(parts: Iterable[Examples]) -> float:
    """Return the end of an error scale that all share: the 99.5th percentile, up to 0.05."""
    errors = np.concatenate([part.errors.ravel() for part in parts])
    return max(0.05, math.ceil(float(np.percentile(errors, ERROR_PERCENTILE)) * 20) / 20)


def compare_image(
    chosen: Chosen, original: NDArray[np.float32], reconstruction: NDArray[np.float32]
) -> Examples:
    """Measure the error at full size, then keep no more pixels than a panel shows.

    Args:
        chosen: Which image it is.
        original: (S, S), in [0, 1].
        reconstruction: (S, S), in [0, 1].
    """
    error = np.abs(original - reconstruction)
    return Examples(
        [chosen],
        shrink(original[None], PANEL_PX),
        shrink(reconstruction[None], PANEL_PX),
        shrink(error[None], PANEL_PX),
        np.array([error.mean(dtype=np.float64)]),
    )


def join_examples(parts: list[Examples]) -> Examples:
    """Put examples beside each other; at least one."""
    return Examples(
        [chosen for part in parts for chosen in part.chosen],
        np.concatenate([part.originals for part in parts]),
        np.concatenate([part.reconstructions for part in parts]),
        np.concatenate([part.errors for part in parts]),
        np.concatenate([part.l1 for part in parts]),
    )


def draw_reconstructions(
    examples: Examples, limit: float, theme: Theme, *, max_columns: int = MAX_COLUMNS
) -> Figure:
    """Draw a column an example, three panels below each other.

    Args:
        examples: At least one.
        limit: End of the error scale, in grey levels of 1.
        theme: Colours.
        max_columns: At most so many beside each other.
    """
    count = len(examples.chosen)
    num_bands = math.ceil(count / max_columns)
    num_columns = math.ceil(count / num_bands)
    room = (WIDTH_IN - LEFT_IN - RIGHT_IN) / num_columns - GAP_IN
    panel = min(MAX_PANEL_IN, room)
    band = len(ROWS) * (panel + GAP_IN)
    figure = new_figure(num_bands * band + (num_bands - 1) * BAND_GAP_IN + TOP_IN + 0.06)
    for example in range(count):
        row, column = divmod(example, num_columns)
        top = TOP_IN + row * (band + BAND_GAP_IN)
        left = LEFT_IN + column * (panel + GAP_IN)
        axes = [
            place(figure, left, top + step * (panel + GAP_IN), panel, panel)
            for step in range(len(ROWS))
        ]
        _fill(axes, examples, example, limit)
        if column == 0:
            _label(axes, theme)
    right = LEFT_IN + num_columns * (panel + GAP_IN)
    top = TOP_IN + 2 * (panel + GAP_IN)
    _add_colour_bar(figure, limit, (right + 0.08, top, 0.13, panel))
    return figure


def _fill(axes: list[Axes], examples: Examples, example: int, limit: float) -> None:
    original, reconstruction, error = axes
    original.imshow(examples.originals[example], cmap="gray", vmin=0, vmax=1)
    reconstruction.imshow(examples.reconstructions[example], cmap="gray", vmin=0, vmax=1)
    error.imshow(examples.errors[example], cmap=ERROR_MAP, vmin=0, vmax=limit)
    chosen = examples.chosen[example]
    title = chosen.title or chosen.image.removesuffix(".png")
    original.set_title(
        f"{title}\nL1 {examples.l1[example]:.4f}",
        fontsize=SMALL_PT - 0.7,
        fontweight="normal",
        pad=4,
    )
    for panel in axes:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
        for box in chosen.boxes * examples.originals.shape[-1] - 0.5:  # to the edges of pixels
            width, height = box[2:] - box[:2]
            panel.add_patch(Rectangle(box[:2], width, height, fill=False, color=BOX))


def _label(axes: list[Axes], theme: Theme) -> None:
    for panel, text in zip(axes, ROWS, strict=True):
        panel.set_ylabel(text, color=theme.ink, labelpad=5)


def _add_colour_bar(figure: Figure, limit: float, box: tuple[float, float, float, float]) -> None:
    scale = ScalarMappable(Normalize(0, limit), cmap=ERROR_MAP)
    bar = figure.colorbar(scale, cax=place(figure, *box), extend="max", extendfrac=0.04)
    bar.outline.set_visible(False)
    bar.set_ticks([0, limit / 2, limit])
    bar.ax.set_yticklabels(["0", f"{limit / 2:.3g}", f"{limit:.3g}"])
    bar.set_label("error, in grey levels of 1", fontsize=SMALL_PT)


NUM_EXTREMES = 3
NUM_BOXED = 6


def no_boxes() -> NDArray[np.float64]:
    """Return the boxes of a film without any."""
    return np.zeros((0, 4))


@dataclass(frozen=True)
class Chosen:
    """An image to show.

    Attributes:
        image: Its name.
        title: Why it is shown; may be empty.
        boxes: (K, 4), left, top, right and bottom in [0, 1], to draw on it.
    """

    image: str
    title: str = ""
    boxes: NDArray[np.float64] = field(default_factory=no_boxes)


def choose_films(config: ReportConfig, tables: RunTables, fit: Fit) -> dict[str, list[Chosen]]:
    """Return what each strip of films shows; a strip without a film is left out.

    Args:
        config: How many are drawn at random, and with which seed.
        tables: The stages' files.
        fit: How files of another shape became square.
    """
    test = tables.latents[(tables.images["split"] == "test").to_numpy()]
    names = test["image"].tolist()
    drawn = np.random.default_rng(config.seed).permutation(len(names))
    found = {
        "reconstructions": [Chosen(names[row]) for row in drawn[: config.num_reconstructions]],
        "extremes": _extremes(test),
        "one_a_class": _one_a_class(tables, test),
        "boxed": _boxed(tables, fit, config.seed),
    }
    return {name: chosen for name, chosen in found.items() if chosen}


def _extremes(test: pd.DataFrame) -> list[Chosen]:
    """Return the images with the three lowest and the three highest errors."""
    ranked = test.sort_values(["l1", "image"])["image"].tolist()
    count = min(NUM_EXTREMES, len(ranked) // 2)
    titled = [
        Chosen(name, f"rank {rank} of {len(ranked)}") for rank, name in enumerate(ranked, start=1)
    ]
    return [*titled[:count], *titled[len(titled) - count :]]


def _one_a_class(tables: RunTables, test: pd.DataFrame) -> list[Chosen]:
    """Return the image of median error of each pathology that test has, with its name."""
    ranked = test.merge(tables.images.drop(columns="split"), on="image").sort_values(
        ["l1", "image"]
    )
    found = []
    for name in tables.classifier["test"].pathologies:
        own = ranked.loc[ranked[name] == 1, "image"].tolist()
        if own:
            found.append(Chosen(own[(len(own) - 1) // 2], name.replace("_", " ")))
    return found


def _boxed(tables: RunTables, fit: Fit, seed: int) -> list[Chosen]:
    """Return films with boxes, drawn at random, of test; of validation where test has too few."""
    boxes = tables.boxes[tables.boxes["split"] != "train"]
    if boxes["image"].nunique() == 0:
        return []
    cases = [case for _, case in boxes.groupby(["image", "pathology"], sort=True)]
    order = np.random.default_rng(seed).permutation(len(cases))
    of_test = [cases[row]["split"].iloc[0] == "test" for row in order]
    ranked = order[np.argsort(np.logical_not(of_test), kind="stable")]
    return [_boxed_case(cases[row], fit) for row in ranked[:NUM_BOXED]]


def _boxed_case(case: pd.DataFrame, fit: Fit) -> Chosen:
    first = case.iloc[0]
    part = "" if first["split"] == "test" else " (validation)"
    title = f"{str(first['pathology']).replace('_', ' ')}{part}"
    return Chosen(str(first["image"]), title, boxes_on_square(case, fit))
