"""Which images are shown, their reconstructions and the absolute error between them.

Images are selected by rules that look at no pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.audit.localisation import CASE, Fit, boxes_on_square
from cxrmodel.evaluation.resolution import shrink, to_unit
from cxrmodel.models.vae import VAE
from cxrmodel.report.figures.theme import (
    SMALL_PT,
    WIDTH_IN,
    Theme,
    fitting_size,
    new_figure,
    place,
    shown_name,
)
from cxrmodel.report.run import Run
from cxrmodel.training.encoding import reconstruct

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

NUM_EXTREMES = 3
NUM_BOXED = 6
MAX_COLUMNS = 6
MAX_PANEL_IN = 2.6
PANEL_PX = 512  # more than a panel has, and all that is kept of an image
LEFT_IN, RIGHT_IN, TOP_IN, BAND_GAP_IN, GAP_IN = 0.3, 0.86, 0.42, 0.62, 0.06
ERROR_PERCENTILE = 99.5
ERROR_MAP = "magma"
BOX = "#00e5ff"  # a colour that no image and no error map has
ROWS = ("Original", "Reconstruction", "|Error|")


@dataclass(frozen=True)
class Selection:
    """An image to show.

    Attributes:
        image: Its name.
        l1: Its mean absolute error at full size.
        title: Why it is shown; may be empty.
        boxes: (K, 4), left, top, right and bottom in [0, 1], to draw on it.
    """

    image: str
    l1: float
    title: str = ""
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))

    @property
    def name(self) -> str:
        """The image's name without the ending of its file."""
        return self.image.removesuffix(".png")


@dataclass(frozen=True)
class Example:
    """A selected image beside its reconstruction, no larger than it is shown.

    Attributes:
        selection: Which image it is, and why.
        original: (s, s), float32 in [0, 1].
        reconstruction: (s, s), float32 in [0, 1].
        error: (s, s), float32, absolute, averaged over the area of a pixel.
    """

    selection: Selection
    original: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    error: NDArray[np.float32]


def select_images(config: ReportConfig, run: Run) -> dict[str, list[Selection]]:
    """Return the images of each strip of the page, without the strips that have none.

    Args:
        config: How many are drawn at random, and with which seed.
        run: What was read.
    """
    test = run.latents[run.in_test]
    drawn = np.random.default_rng(config.seed).permutation(len(test))[: config.num_reconstructions]
    found = {
        "reconstructions": [Selection(*row) for row in _names_and_errors(test.iloc[drawn])],
        "extremes": _extremes(test),
        "one_per_pathology": _one_per_pathology(run, test),
        "boxed": _boxed(run, config.seed),
    }
    return {name: selected for name, selected in found.items() if selected}


def _names_and_errors(latents: pd.DataFrame) -> list[tuple[str, float]]:
    return list(zip(latents["image"], latents["l1"].astype(float), strict=True))


def _extremes(test: pd.DataFrame) -> list[Selection]:
    """Return the images with the three lowest and the three highest errors."""
    ranked = _names_and_errors(test.sort_values(["l1", "image"]))
    count = min(NUM_EXTREMES, len(ranked) // 2)
    titled = [
        Selection(*row, f"rank {rank} of {len(ranked)}") for rank, row in enumerate(ranked, start=1)
    ]
    return [*titled[:count], *titled[len(titled) - count :]]


def _one_per_pathology(run: Run, test: pd.DataFrame) -> list[Selection]:
    """Return the image of median error of each pathology that test has, with its name."""
    labelled = test.merge(run.images.drop(columns="split"), on="image")
    ranked = labelled.sort_values(["l1", "image"])
    found = []
    for pathology in run.predictions["test"].pathologies:
        positive = _names_and_errors(ranked[(ranked[pathology] == 1).fillna(False)])
        if positive:
            found.append(Selection(*positive[(len(positive) - 1) // 2], shown_name(pathology)))
    return found


def _boxed(run: Run, seed: int) -> list[Selection]:
    """Return images with boxes, drawn at random, of test first and then of validation."""
    boxes = run.boxes[run.boxes["split"] != "train"]
    if boxes.empty:
        return []
    cases = boxes.drop_duplicates(CASE).sort_values(CASE)
    drawn = cases.iloc[np.random.default_rng(seed).permutation(len(cases))]
    of_test_first = drawn.sort_values("split", key=lambda part: part != "test", kind="stable")
    shown = of_test_first[:NUM_BOXED]
    own = boxes[boxes["image"].isin(shown["image"])].set_index(CASE)
    errors = run.latents.set_index("image")["l1"]
    return [
        _boxed_case(own.loc[[key]].reset_index(), errors, run.record.fit)
        for key in shown[CASE].itertuples(index=False, name=None)
    ]


def _boxed_case(case: pd.DataFrame, errors: pd.Series, fit: Fit) -> Selection:
    image, pathology, part = case.iloc[0][["image", "pathology", "split"]]
    title = shown_name(pathology) + ("" if part == "test" else " (validation)")
    return Selection(image, float(errors[image]), title, boxes_on_square(case, fit))


def reconstruct_selected(selected: list[Selection], vae: VAE, pixels: Pixels) -> list[Example]:
    """Reconstruct images; they are read one at a time, since at full size they are large."""
    examples = []
    for selection in selected:
        original = pixels.read(pixels.rows_of([selection.image]))  # (1, S, S)
        decoded = reconstruct(vae, original, device="cpu")  # the same pixels on every machine
        examples.append(make_example(selection, to_unit(original)[0], decoded[0]))
    return examples


def make_example(
    selection: Selection, original: NDArray[np.float32], reconstruction: NDArray[np.float32]
) -> Example:
    """Take the error at full size, then keep no more pixels than a panel shows.

    Args:
        selection: Which image it is.
        original: (S, S), in [0, 1].
        reconstruction: (S, S), in [0, 1].
    """
    full = (original, reconstruction, np.abs(original - reconstruction))
    return Example(selection, *(shrink(image[None], PANEL_PX)[0] for image in full))


def error_limit(examples: Iterable[Example]) -> float:
    """Return the end of an error scale that all share: the 99.5th percentile, up to 0.05."""
    errors = np.concatenate([example.error.ravel() for example in examples])
    return max(0.05, math.ceil(float(np.percentile(errors, ERROR_PERCENTILE)) * 20) / 20)


def draw_reconstructions(
    examples: list[Example], limit: float, theme: Theme, *, max_columns: int = MAX_COLUMNS
) -> Figure:
    """Draw a column per example, three panels below each other.

    Args:
        examples: At least one.
        limit: End of the error scale, in grey levels from 0 to 1.
        theme: Colours.
        max_columns: The most columns beside each other.
    """
    num_bands = math.ceil(len(examples) / max_columns)
    num_columns = math.ceil(len(examples) / num_bands)
    panel = min(MAX_PANEL_IN, (WIDTH_IN - LEFT_IN - RIGHT_IN) / num_columns - GAP_IN)
    band = len(ROWS) * (panel + GAP_IN)
    figure = new_figure(num_bands * band + (num_bands - 1) * BAND_GAP_IN + TOP_IN + 0.06)
    for number, example in enumerate(examples):
        row, column = divmod(number, num_columns)
        top = TOP_IN + row * (band + BAND_GAP_IN)
        left = LEFT_IN + column * (panel + GAP_IN)
        axes = [
            place(figure, left, top + step * (panel + GAP_IN), panel, panel)
            for step in range(len(ROWS))
        ]
        _show(axes, example, limit, panel)
        if column == 0:
            for one, name in zip(axes, ROWS, strict=True):
                one.set_ylabel(name, color=theme.ink, labelpad=5)
    right = LEFT_IN + num_columns * (panel + GAP_IN)
    _add_colour_bar(figure, limit, (right + 0.08, TOP_IN + 2 * (panel + GAP_IN), 0.13, panel))
    return figure


def _show(axes: list[Axes], example: Example, limit: float, panel_in: float) -> None:
    original, reconstruction, error = axes
    original.imshow(example.original, cmap="gray", vmin=0, vmax=1)
    reconstruction.imshow(example.reconstruction, cmap="gray", vmin=0, vmax=1)
    error.imshow(example.error, cmap=ERROR_MAP, vmin=0, vmax=limit)
    selection = example.selection
    title = f"{selection.title or selection.name}\nL1 {selection.l1:.4f}"
    size = fitting_size(title, panel_in, SMALL_PT - 0.7)
    original.set_title(title, fontsize=size, fontweight="normal", pad=4)
    for panel in axes:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        for box in selection.boxes * len(example.original) - 0.5:  # to the edges of pixels
            width, height = box[2:] - box[:2]
            panel.add_patch(Rectangle(box[:2], width, height, fill=False, color=BOX))


def _add_colour_bar(figure: Figure, limit: float, box: tuple[float, float, float, float]) -> None:
    scale = ScalarMappable(Normalize(0, limit), cmap=ERROR_MAP)
    bar = figure.colorbar(scale, cax=place(figure, *box), extend="max", extendfrac=0.04)
    bar.outline.set_visible(False)
    bar.set_ticks([0, limit / 2, limit])
    bar.ax.set_yticklabels(["0", f"{limit / 2:.3g}", f"{limit:.3g}"])
    bar.set_label("error, in grey levels of 1", fontsize=SMALL_PT)
