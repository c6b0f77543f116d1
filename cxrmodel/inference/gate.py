"""Is it a frontal chest X-ray at all? Told from a thumbnail, by what the train images look like.

Each image becomes 32 x 32 pixels of zero mean and unit length. Three numbers tell whether such a
thumbnail is one of theirs: its correlation with their mean, its distance from their principal
components (what these cannot express), and its place along them. Limits come from the spread of
these numbers over validation images, which the components have not seen.

What it cannot tell: an image that was squeezed and has no tag that says so, a
mirrored image or one that lies on its side, a lateral image that no tag calls so, the chest of an
animal, a phantom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

THUMBNAIL_PX = 32
NUM_COMPONENTS = 16
MIN_IMAGES = 40  # of train and of validation: fewer do not tell what is usual
NUM_SPREADS = 3.8  # beyond the median; a normal number is further in 1 of 14,000 cases
MIN_CORRELATION = 0.1  # a few images with a wide spread must not let noise pass
WITHIN_ONE_SPREAD = 0.84  # quantile of a normal number one standard deviation above its median

INVERTED, NOT_A_CHEST_IMAGE = "inverted", "not_a_chest_image"
MEANINGS = {
    INVERTED: "Black and white are the other way round than in a chest X-ray.",
    NOT_A_CHEST_IMAGE: "It does not look like a frontal chest X-ray.",
}
PREFIX = "gate."

Thumbnails = NDArray[np.float64]


def thumbnails(pixels: NDArray[np.uint8]) -> Thumbnails:
    """Return (B, S, S) images as (B, 32 * 32) vectors of zero mean and unit length.

    A vector is all zeros where the image is of one grey.
    """
    batch = torch.from_numpy(pixels).float()[:, None]
    small = functional.interpolate(batch, size=(THUMBNAIL_PX, THUMBNAIL_PX), mode="area")
    flat = small.flatten(start_dim=1).double().numpy()
    centred = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(np.where(length < 1, 0, centred / np.maximum(length, 1)))


@dataclass(frozen=True)
class Gate:
    """What usual thumbnails look like; P = 32 * 32 pixels, K components.

    Attributes:
        template: (P,), direction of the mean thumbnail.
        mean: (P,).
        components: (K, P), principal components.
        scales: (K,), standard deviation along each.
        limits: (3,): least correlation with the template, largest rest, largest place.
    """

    template: Thumbnails
    mean: Thumbnails
    components: Thumbnails
    scales: Thumbnails
    limits: Thumbnails

    @classmethod
    def fit(cls, train: Thumbnails, validation: Thumbnails) -> Self | None:
        """Learn from thumbnails of train and validation images; None where there are too few."""
        if min(len(train), len(validation)) < MIN_IMAGES:
            return None
        mean = train.mean(axis=0)
        _, singular, components = np.linalg.svd(train - mean, full_matrices=False)
        gate = cls(
            mean / np.linalg.norm(mean),
            mean,
            components[:NUM_COMPONENTS],
            singular[:NUM_COMPONENTS] / np.sqrt(len(train)),
            np.zeros(3),
        )
        correlation, rest, place = gate._numbers(validation)
        least = max(MIN_CORRELATION, -_upper_limit(-correlation))
        limits = [least, _upper_limit(rest), _upper_limit(place)]
        return cls(gate.template, mean, gate.components, gate.scales, np.array(limits))

    def check(self, pixels: NDArray[np.uint8]) -> list[str]:
        """Say what is wrong with each of (B, S, S) images: a reason, or nothing."""
        return self.check_thumbnails(thumbnails(pixels))

    def check_thumbnails(self, seen: Thumbnails) -> list[str]:
        """Say what is wrong with each of (B, P) thumbnails: a reason, or nothing."""
        is_usual, is_usual_inverted = self._is_usual(seen), self._is_usual(-seen)
        return [
            "" if usual else INVERTED if inverted else NOT_A_CHEST_IMAGE
            for usual, inverted in zip(is_usual, is_usual_inverted, strict=True)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, for a bundle."""
        return {
            f"{PREFIX}{name}": torch.from_numpy(value.copy()) for name, value in vars(self).items()
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self | None:
        """Return what `tensors` gave; None where a bundle has no gate.

        Raises:
            ValueError: A part is missing or has another shape.
        """
        found = {
            name.removeprefix(PREFIX): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith(PREFIX)
        }
        if not found:
            return None
        num_px, num_components = THUMBNAIL_PX**2, len(found.get("scales", ()))
        shapes = {
            "template": (num_px,),
            "mean": (num_px,),
            "components": (num_components, num_px),
            "scales": (num_components,),
            "limits": (3,),
        }
        if {name: value.shape for name, value in found.items()} != shapes:
            raise ValueError("the parts of its input gate are not those of this version")
        return cls(**found)

    def _is_usual(self, seen: Thumbnails) -> NDArray[np.bool_]:
        correlation, rest, place = self._numbers(seen)
        least, most_rest, most_place = self.limits
        return np.asarray(
            seen.any(axis=1) & (correlation >= least) & (rest <= most_rest) & (place <= most_place),
            dtype=bool,
        )

    def _numbers(self, seen: Thumbnails) -> tuple[Thumbnails, Thumbnails, Thumbnails]:
        centred = seen - self.mean
        along = centred @ self.components.T  # (N, K)
        rest = np.linalg.norm(centred - along @ self.components, axis=1)
        place = np.sqrt(((along / self.scales) ** 2).mean(axis=1))
        return seen @ self.template, rest, place


def _upper_limit(values: Thumbnails) -> float:
    middle = float(np.median(values))
    return middle + NUM_SPREADS * (float(np.quantile(values, WITHIN_ONE_SPREAD)) - middle)
