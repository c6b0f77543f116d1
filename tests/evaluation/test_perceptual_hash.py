import numpy as np
import pytest

from cxrmodel.evaluation.perceptual_hash import NUM_BITS, hash_images, nearest_distances


@pytest.fixture
def images():
    """Smooth pictures, each of its own few waves."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 64)
    waves = rng.uniform(-12, 12, (3, 2, 20, 1, 1))
    phases = rng.uniform(0, 6, (3, 20, 1, 1))
    sines = [
        np.sin(x * grid[None, None] + y * grid[None, :, None] + phase)
        for (x, y), phase in zip(waves, phases, strict=True)
    ]
    return (0.5 + np.mean(sines, axis=0) / 2).astype(np.float32)


def test_a_copy_is_near_and_another_image_is_far(images):
    hashes = hash_images(images)
    assert hashes.shape == (20, NUM_BITS // 8)
    noise = np.random.default_rng(1).normal(0, 0.005, images.shape)
    altered = hash_images((0.1 + 0.7 * images + noise).astype(np.float32))
    rows, distances = nearest_distances(altered, hashes, block=7)
    assert rows.tolist() == list(range(20))
    assert distances.max() <= 24
    others = [nearest_distances(hashes[[row]], np.delete(hashes, row, 0))[1][0] for row in range(9)]
    assert min(others) > 48


def test_distance_counts_bits():
    one = np.zeros((1, NUM_BITS // 8), np.uint8)
    other = one.copy()
    other[0, :2] = 0b10100000
    assert nearest_distances(one, np.concatenate([~one, other])) == (np.array([1]), np.array([4]))
