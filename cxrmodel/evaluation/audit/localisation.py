"""Whether the autoencoder errs where radiologists drew boxes.

Source of the pointing game: J. Zhang et al., Top-down neural attention by excitation backprop,
ECCV 2016. One image and one pathology are a case; its boxes count as one region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.data.datasets.boxes import BOX_GRID_PX
from cxrmodel.evaluation.patient_bootstrap import (
    NUM_RESAMPLES,
    Estimate,
    Floats,
    PatientBootstrap,
    Rows,
    few_patients,
)
from cxrmodel.evaluation.resolution import shrink

MAP_PX = 256  # a larger error map is averaged over areas down to this many pixels a side
# Along a side: the tile of highest mean error is the point. A Gaussian would do the same except at
# the borders, where it averages fewer pixels and so puts most maxima of mere noise.
NUM_TILES = 32
MAX_IMAGES = 1_000
BATCH = 8  # images whose error maps are made at once
NO_BOX = "no image with a box"
ONE_PATIENT = "no other patient's image has a box"

CASE_COLUMNS = (
    "image", "patient_id", "pathology", "num_boxes", "chance", "inside", "outside", "hit",
    "other_images",
)  # fmt: skip
CASE = ["image", "pathology"]
PLACED = ["left", "top", "right", "bottom"]
Fit = Literal["crop", "pad", "resize"]
ErrorMaps = Callable[[Sequence[str]], NDArray[np.float32]]


def boxes_on_square(boxes: pd.DataFrame, fit: Fit) -> Floats:
    """Follow boxes through the fit that `decode_image` gives their file.

    Args:
        boxes: K rows with `x`, `y`, `width`, `height` (from the file's top left corner, on a grid
            of `BOX_GRID_PX` along each of its sides) and `file_width`, `file_height` (px).
        fit: How another shape becomes square.

    Returns:
        (K, 4): left, top, right and bottom in [0, 1] of the square's side; of no area where a crop
        cuts the whole box off.
    """
    corners = boxes[["x", "y"]].to_numpy(dtype=np.float64)  # (K, 2)
    sides = boxes[["width", "height"]].to_numpy(dtype=np.float64)
    files = boxes[["file_width", "file_height"]].to_numpy(dtype=np.float64)
    scale = (files / BOX_GRID_PX)[:, None]  # 1 for NIH's own files, 0.5 for copies of 512 px
    edges = np.stack([corners, corners + sides], axis=1) * scale  # (K, 2, 2): corner, axis
    if fit == "resize":
        placed = edges / files[:, None]
    else:
        square = files.min(axis=1) if fit == "crop" else files.max(axis=1)
        placed = (edges - ((files - square[:, None]) / 2)[:, None]) / square[:, None, None]
    return np.asarray(placed.clip(0, 1).reshape(len(boxes), 4))


@dataclass(frozen=True)
class GroupLocalisation:
    """Cases of one pathology, or all there are; metrics.json has the same names.

    Attributes:
        num_boxes, num_images, num_patients: What the scores rest on.
        pointing_game: Share of cases whose point lies in a box: the centre of the tile of highest
            error.
        chance: What a point drawn anywhere on the square would reach: the boxes' share of it.
        other_images: What the points of other patients' images reach in the same boxes, so what
            anatomy alone is worth.
        gain: `pointing_game` minus `chance`, paired.
        gain_over_other_images: `pointing_game` minus `other_images`, paired.
        error_inside, error_outside: Mean absolute error in and out of the boxes, on [0, 1].
        error_difference: Inside minus outside, paired.
        warning: Why not to trust the intervals, if so.
    """

    num_boxes: int
    num_images: int
    num_patients: int
    pointing_game: Estimate
    chance: Estimate
    other_images: Estimate
    gain: Estimate
    gain_over_other_images: Estimate
    error_inside: Estimate
    error_outside: Estimate
    error_difference: Estimate
    warning: str | None


@dataclass(frozen=True)
class Localisation:
    """Error maps against boxes.

    Attributes:
        overall: All cases.
        per_class: By pathology; those without a case are left out.
    """

    overall: GroupLocalisation
    per_class: dict[str, GroupLocalisation]


def localise(
    boxes: pd.DataFrame, error_maps: ErrorMaps, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Localisation:
    """Compare error maps with boxes; of more than 1,000 images 1,000 are drawn at random.

    Args:
        boxes: A row per box: `image`, `patient_id`, `pathology`, and `left`, `top`, `right` and
            `bottom` in [0, 1] of the square.
        error_maps: Returns the (B, S, S) absolute errors of some images; asked for a few at a time.
        num_resamples: Bootstrap draws of the patients.
        seed: Seed of the draws.
    """
    names = np.unique(boxes["image"].to_numpy(dtype=str))
    if len(names) > MAX_IMAGES:
        names = np.random.default_rng(seed).choice(names, MAX_IMAGES, replace=False)
    cases = score_cases(boxes[boxes["image"].isin(names)], error_maps)
    patients = pd.factorize(cases["patient_id"])[0].astype(np.int64)
    bootstrap = PatientBootstrap(patients, num_resamples=num_resamples, seed=seed)
    kinds = cases["pathology"].to_numpy()
    everything = np.ones(len(cases), dtype=bool)
    return Localisation(
        _summarise(cases, everything, bootstrap),
        {str(name): _summarise(cases, kinds == name, bootstrap) for name in np.unique(kinds)},
    )


def score_cases(boxes: pd.DataFrame, error_maps: ErrorMaps) -> pd.DataFrame:
    """Score each case by itself.

    Args:
        boxes: As for `localise`.
        error_maps: Likewise.

    Returns:
        A row per case: `image`, `patient_id`, `pathology`, `num_boxes`, `chance`, `inside`,
        `outside`, `hit` (0 or 1), and `other_images` (NaN where there is no other patient). A case
        whose boxes hold no pixel's centre is left out.
    """
    boxes = boxes.sort_values(CASE, kind="stable")
    cases = boxes.drop_duplicates(CASE)
    ends = np.flatnonzero(np.diff(boxes.groupby(CASE).ngroup())) + 1
    placed = np.split(boxes[PLACED].to_numpy(dtype=np.float64), ends)  # by case
    image_of, images = pd.factorize(cases["image"])
    patient_of = pd.factorize(cases["patient_id"])[0]
    points, errors = [], []
    for start in range(0, len(images), BATCH):
        few = [str(image) for image in images[start : start + BATCH]]
        maps = shrink(error_maps(few), MAP_PX)
        points += [_highest(error) for error in maps]
        for case in np.flatnonzero((image_of >= start) & (image_of < start + BATCH)):
            errors.append(_score_error(maps[image_of[case] - start], placed[case]))
    first = np.unique(image_of, return_index=True)[1]  # a case of each image
    where = np.array(points)
    scored = [
        {
            **cases.iloc[case][[*CASE, "patient_id"]],
            "num_boxes": len(placed[case]),
            **error,
            **_score_points(
                are_inside(where, placed[case]),
                image_of[case],
                patient_of[first] != patient_of[case],
            ),
        }
        for case, error in enumerate(errors)
        if error is not None
    ]
    return pd.DataFrame(scored, columns=CASE_COLUMNS)


def _highest(error: NDArray[np.float32]) -> tuple[float, float]:
    """Return the centre of the tile with the highest mean error: x and y in [0, 1]."""
    tiles = shrink(error[None], NUM_TILES)[0]
    row, column = np.unravel_index(int(tiles.argmax()), tiles.shape)
    return (float(column) + 0.5) / len(tiles), (float(row) + 0.5) / len(tiles)


def _score_error(error: NDArray[np.float32], placed: Floats) -> dict[str, float] | None:
    """Compare an error map in and out of a case's boxes; None where one has no pixel's centre."""
    mask = mask_of(placed, len(error))
    if not mask.any() or mask.all():
        return None
    return {
        "chance": float(mask.mean()),
        "inside": float(error[mask].mean()),
        "outside": float(error[~mask].mean()),
    }


def _score_points(inside: Rows, own: int, of_others: Rows) -> dict[str, float]:
    """Say whether a case's own point is in its boxes, and how many of other patients' are.

    Args:
        inside: (N,), which images have their point in the boxes.
        own: The case's image.
        of_others: (N,), which images are of another patient.
    """
    others = inside[of_others]
    return {
        "hit": float(inside[own]),
        "other_images": float(others.mean()) if others.size else float("nan"),
    }


def _summarise(
    cases: pd.DataFrame, members: Rows, bootstrap: PatientBootstrap
) -> GroupLocalisation:
    own = cases[members]

    def mean(one: str, minus: str | None = None) -> Estimate:
        values = cases[one] - (cases[minus] if minus else 0.0)
        if values[members].isna().any():
            return Estimate.undefined(ONE_PATIENT)
        return bootstrap.mean(values.to_numpy(dtype=np.float64), members, NO_BOX)

    num_patients = int(own["patient_id"].nunique())
    return GroupLocalisation(
        int(own["num_boxes"].sum()),
        int(own["image"].nunique()),
        num_patients,
        pointing_game=mean("hit"),
        chance=mean("chance"),
        other_images=mean("other_images"),
        gain=mean("hit", "chance"),
        gain_over_other_images=mean("hit", "other_images"),
        error_inside=mean("inside"),
        error_outside=mean("outside"),
        error_difference=mean("inside", "outside"),
        warning=few_patients(num_patients) if num_patients else None,
    )


def mask_of(placed: Floats, side: int) -> Rows:
    """Return (side, side), true where the centre of a pixel lies in any of (K, 4) boxes."""
    mask = np.zeros((side, side), dtype=bool)
    for left, top, right, bottom in np.ceil(placed * side - 0.5).astype(int):
        mask[top:bottom, left:right] = True
    return mask


def are_inside(points: Floats, placed: Floats) -> Rows:
    """Say which of (N, 2) points, x and y, lie in any of (K, 4) boxes; their right edge is out."""
    starts, ends = placed[:, :2], placed[:, 2:]
    within = (points[:, None] >= starts) & (points[:, None] < ends)  # (N, K, 2)
    return np.asarray(np.any(np.all(within, axis=2), axis=1))
