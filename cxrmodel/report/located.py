"""The autoencoder's errors beside the boxes that radiologists drew, on films it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrmodel.evaluation.audit.boxes import PLACED, boxes_on_square
from cxrmodel.evaluation.audit.localisation import ErrorMap, Localisation, localise
from cxrmodel.evaluation.intervals import MIN_POSITIVES
from cxrmodel.evaluation.resolution import to_unit
from cxrmodel.report.inputs import RunInputs, RunRecord, RunTables
from cxrmodel.training.encoding import load_vae, reconstruct

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

TEST, OUTSIDE_TRAIN = "test", "outside_train"


def locate_errors(
    tables: RunTables, inputs: RunInputs, record: RunRecord, pixels: Pixels, *, seed: int
) -> dict[str, Localisation]:
    """Compare the error maps of boxed films with their boxes.

    Args:
        tables: The stages' files.
        inputs: Their folders.
        record: Holds how files became square.
        pixels: The images; those with a box are read, one at a time.
        seed: Of the bootstrap.

    Returns:
        `test`; and where that has boxes of fewer than ten patients `outside_train`, which is test
        and validation together. Nothing where no film has a box.
    """
    if tables.boxes.empty:
        return {}
    placed = boxes_on_square(tables.boxes, record.fit)
    boxes = tables.boxes.assign(**dict(zip(PLACED, placed.T, strict=True)))
    error_map = _error_maps(inputs, pixels)
    of_test = boxes[boxes["split"] == "test"]
    found = {TEST: localise(of_test, error_map, seed=seed)}
    if of_test["patient_id"].nunique() < MIN_POSITIVES:
        others = boxes[boxes["split"] != "train"]
        found[OUTSIDE_TRAIN] = localise(others, error_map, seed=seed)
    return found


def _error_maps(inputs: RunInputs, pixels: Pixels) -> ErrorMap:
    vae = load_vae(inputs.vae)

    def error_map(image: str) -> NDArray[np.float32]:
        original = pixels.read(pixels.rows_of([image]))  # (1, S, S)
        decoded = reconstruct(vae, original, device="cpu")  # the same numbers on every machine
        return np.asarray(np.abs(decoded - to_unit(original))[0])

    return error_map
