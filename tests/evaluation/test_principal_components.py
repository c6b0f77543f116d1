import numpy as np
import pytest
from sklearn.decomposition import PCA, IncrementalPCA

from cxrmodel.evaluation.principal_components import PrincipalComponents


def images(count=90, pixels=300):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(count, 6)) * [9, 7, 5, 4, 3, 2]
    pattern = rng.normal(size=(6, pixels))
    return (factors @ pattern + 0.5 * rng.normal(size=(count, pixels)) + 3).astype(np.float32)


def fit(data, sizes, num_components):
    found = PrincipalComponents.none(data.shape[1])
    for block in np.split(data, np.cumsum(sizes)[:-1]):
        found = found.updated(block, num_components)
    return found


def test_one_block_equals_the_exact_components():
    data = images()
    found, exact = fit(data, [90], 5), PCA(5, svd_solver="full").fit(data)
    assert np.allclose(found.mean, exact.mean_, atol=1e-5)
    assert np.allclose(found.singular_values, exact.singular_values_, rtol=1e-4)
    assert np.allclose(np.abs((found.components * exact.components_).sum(axis=1)), 1, atol=1e-5)


def test_blocks_equal_scikit_learns_incremental_ones():
    data = images()
    found, other = fit(data, [40, 30, 20], 5), IncrementalPCA(5)
    for block in np.split(data, [40, 70]):
        other.partial_fit(block.astype(np.float64))
    assert found.num_images == 90
    assert np.allclose(found.mean, other.mean_, atol=1e-5)
    assert np.allclose(found.singular_values, other.singular_values_, rtol=1e-5)
    assert np.allclose(np.abs((found.components * other.components_).sum(axis=1)), 1, atol=1e-6)


def test_few_images_span_one_direction_less_and_come_back_exactly():
    data = images(count=7)
    found = fit(data, [4, 3], 64)
    assert found.components.shape == (6, 300)
    assert np.allclose(found.inverse_transform(found.transform(data)), data, atol=1e-3)


@pytest.mark.parametrize("count", [1, 5])
def test_equal_images_have_no_component_and_are_their_mean(count):
    data = np.full((count, 10), 0.25, np.float32)
    found = fit(data, [count], 4)
    assert found.components.shape == (0, 10)
    assert np.array_equal(found.inverse_transform(found.transform(data)), data)
