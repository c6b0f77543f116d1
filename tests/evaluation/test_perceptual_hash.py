import numpy as np
import pytest

from cxrmodel.evaluation import perceptual_hash
from cxrmodel.evaluation.perceptual_hash import NUM_BITS, hash_images, nearest_within


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
    rows, distances = nearest_within(altered, hashes, 24)
    assert rows.tolist() == list(range(20))
    assert distances.max() <= 24
    others = [nearest_within(hashes[[row]], np.delete(hashes, row, 0), 48)[1] for row in range(9)]
    assert set(np.concatenate(others)) == {49}


def test_distance_counts_bits():
    one = np.zeros((1, NUM_BITS // 8), np.uint8)
    other = one.copy()
    other[0, :2] = 0b10100000
    both = np.concatenate([~one, other])
    assert nearest_within(one, both, 4) == (np.array([1]), np.array([4]))
    assert nearest_within(one, both, 3) == (np.array([0]), np.array([4]))


@pytest.mark.parametrize("num_copies", [0, 30_000])
def test_the_nearest_is_that_of_comparing_all(num_copies, monkeypatch):
    monkeypatch.setattr(perceptual_hash, "OTHERS", 7_000)
    rng = np.random.default_rng(num_copies)
    others = rng.integers(0, 256, (9_000, NUM_BITS // 8), dtype=np.uint8)
    others = np.concatenate([others, np.repeat(others[:1], num_copies, axis=0)])
    queries = others[rng.permutation(len(others))[:60]]
    flips = rng.random((len(queries), NUM_BITS)) < rng.uniform(0, 0.08, (len(queries), 1))
    queries ^= np.packbits(flips, axis=1)
    rows, distances = nearest_within(queries, others, 24)
    bits = np.stack([np.bitwise_count(others ^ query).sum(axis=1) for query in queries])
    is_near = bits.min(axis=1) <= 24
    assert 10 < is_near.sum() < 60
    np.testing.assert_array_equal(rows, np.where(is_near, bits.argmin(axis=1), 0))
    np.testing.assert_array_equal(distances, np.where(is_near, bits.min(axis=1), 25))
