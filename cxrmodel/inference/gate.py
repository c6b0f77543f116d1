"""Is it a frontal chest X-ray at all? Told from a thumbnail, by what the train images look like.

Each image becomes 32 x 32 pixels of zero mean and unit length. One number tells whether such a
thumbnail is one of theirs: its Mahalanobis distance from their mean, with the covariance of their
principal components and the same small variance added in every direction. More than 1.75 times the
usual distance is too far. The usual distance is a median over train and validation images, each
measured by components that have not seen it.

What it cannot tell: an image that was squeezed and has no tag that says so, a
mirrored image or one that lies on its side, a lateral image that no tag calls so, the chest of an
animal, a phantom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

THUMBNAIL_PX = 32
NUM_COMPONENTS = 24
MIN_IMAGES = 40  # of train and of validation: fewer do not tell what is usual
NUM_FOLDS = 5  # of the train images, to measure each by components that have not seen it
ADDED_VARIANCE = 0.01  # in each direction: no variance is known better from a few hundred images
MAX_RATIO = 1.75  # to the usual distance; a ratio, as few images tell a median but no tail

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
        mean: (P,).
        components: (K, P), principal components.
        scales: (K,), standard deviation along each.
        limit: (), largest distance from the mean.
    """

    mean: Thumbnails
    components: Thumbnails
    scales: Thumbnails
    limit: Thumbnails

    @classmethod
    def fit(cls, train: Thumbnails, validation: Thumbnails) -> Self | None:
        """Learn from thumbnails of train and validation images; None where there are too few.

        A fold is a run of train images: the images of a patient stand together in most tables,
        and so fall into one fold.
        """
        train = _without_inverted(train)
        if min(len(train), len(validation)) < MIN_IMAGES:
            return None
        gate = cls._without_limit(train)
        distances = [gate._distance(validation)]
        for fold in np.array_split(np.arange(len(train)), NUM_FOLDS):
            of_others = cls._without_limit(np.delete(train, fold, axis=0))
            distances.append(of_others._distance(train[fold]))
        return replace(gate, limit=np.array(MAX_RATIO * np.median(np.concatenate(distances))))

    @classmethod
    def _without_limit(cls, train: Thumbnails) -> Self:
        mean = train.mean(axis=0)
        _, singular, components = np.linalg.svd(train - mean, full_matrices=False)
        scales = singular[:NUM_COMPONENTS] / np.sqrt(len(train))
        return cls(mean, components[:NUM_COMPONENTS], scales, limit=np.array(np.inf))

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

        The first bundles have three limits of other numbers. Their gate gets a limit that follows
        from its mean and components, without the validation images; after fewer than some 200 train
        images it is too strict.

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
            "mean": (num_px,),
            "components": (num_components, num_px),
            "scales": (num_components,),
        }
        first_shapes = {**shapes, "template": (num_px,), "limits": (3,)}
        found_shapes = {name: value.shape for name, value in found.items()}
        if found_shapes == first_shapes:
            gate = cls(found["mean"], found["components"], found["scales"], np.array(np.inf))
            return replace(gate, limit=np.array(MAX_RATIO * gate._distance_of_train()))
        if found_shapes != {**shapes, "limit": ()}:
            raise ValueError("the parts of its input gate are not those of this version")
        return cls(**found)

    def _is_usual(self, seen: Thumbnails) -> NDArray[np.bool_]:
        is_upright = seen @ self.mean > 0  # so an image and its negative are never both usual
        return np.asarray(is_upright & (self._distance(seen) <= self.limit), dtype=bool)

    def _distance(self, seen: Thumbnails) -> Thumbnails:
        """Return the Mahalanobis distance of each of (B, P) thumbnails from the mean, (B,)."""
        centred = seen - self.mean
        along = centred @ self.components.T  # (B, K)
        rest = centred - along @ self.components
        squared = (along**2 / (self.scales**2 + ADDED_VARIANCE)).sum(axis=1)
        return np.asarray(np.sqrt(squared + (rest**2).sum(axis=1) / ADDED_VARIANCE))

    def _distance_of_train(self) -> float:
        """Return the root mean square distance of the train images.

        Thumbnails have unit length: what their mean and components leave of 1 is the mean square of
        the rest.
        """
        variances = self.scales**2
        rest = 1 - (self.mean**2).sum() - variances.sum()
        squared = (variances / (variances + ADDED_VARIANCE)).sum() + rest / ADDED_VARIANCE
        return float(np.sqrt(squared))


def _without_inverted(seen: Thumbnails) -> Thumbnails:
    """Leave out thumbnails that look more like the negative of the mean of all than like it.

    They widen the components, and so let photographs pass: one in 14 where 5 % are inverted.
    """
    return np.asarray(seen[seen @ seen.sum(axis=0) > 0])
