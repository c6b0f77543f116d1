"""Which test images are shown: by rules that look at no picture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.config import ReportConfig
from cxrmodel.evaluation.audit.boxes import Fit, boxes_on_square
from cxrmodel.report.inputs import RunTables

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
