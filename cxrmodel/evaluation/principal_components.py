"""Principal components of more images than memory holds, a block at a time.

Source: D. A. Ross et al., Incremental Learning for Robust Visual Tracking, IJCV 77 (2008), the
method of scikit-learn's `IncrementalPCA`. That class factorises the (K + B, D) matrix of each
block directly; with D far above K + B the eigenvectors of its (K + B, K + B) Gram matrix give the
same components, tens of times faster at D = 65,536.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RELATIVE_RANK = 1e-12  # of the Gram matrix; below it a direction is rounding


@dataclass(frozen=True)
class PrincipalComponents:
    """The leading directions of some images; K components, D pixels.

    Attributes:
        num_images: How many images have been seen.
        mean: (D,), float64.
        components: (K, D), float64, orthonormal rows by decreasing variance.
        singular_values: (K,), float64, of the centred images.
    """

    num_images: int
    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    singular_values: NDArray[np.float64]

    @classmethod
    def none(cls, num_pixels: int) -> PrincipalComponents:
        """Return the state before the first image."""
        return cls(0, np.zeros(num_pixels), np.zeros((0, num_pixels)), np.zeros(0))

    def updated(self, block: NDArray[np.float32], num_components: int) -> PrincipalComponents:
        """Return the components of the images seen so far and of a (B, D) block together.

        At most `num_components` remain, fewer where the images span fewer directions.
        """
        seen, new = self.num_images, len(block)
        block_mean = block.mean(axis=0, dtype=np.float64)
        shift = np.sqrt(seen * new / (seen + new)) * (self.mean - block_mean)
        matrix = np.vstack(  # (K + B + 1, D)
            [self.singular_values[:, None] * self.components, block - block_mean, shift]
        )
        values, vectors = np.linalg.eigh(matrix @ matrix.T)
        kept = np.argsort(values)[::-1][:num_components]
        kept = kept[values[kept] > RELATIVE_RANK * max(values[-1], 1e-300)]
        singular_values = np.sqrt(values[kept])
        components = vectors[:, kept].T @ matrix / singular_values[:, None]
        mean = self.mean + (block_mean - self.mean) * new / (seen + new)
        return PrincipalComponents(seen + new, mean, components, singular_values)

    def transform(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Project (B, D) images to (B, K) coordinates."""
        return np.asarray((images - self.mean) @ self.components.T)

    def inverse_transform(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (B, D) images of (B, K) coordinates."""
        return np.asarray(coordinates @ self.components + self.mean)
