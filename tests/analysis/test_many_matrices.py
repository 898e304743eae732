"""Many small matrices at once, against NumPy one by one."""

import numpy as np
import pytest

from emhet_dask.analysis.many_matrices import beside, invert_symmetric, multiply


@pytest.mark.parametrize(("side", "count"), [(1, 5), (3, 2047), (6, 5000)])
def test_inverses_and_determinants_are_those_of_lapack(side, count):
    rng = np.random.default_rng(side)
    roots = rng.normal(size=(count, side, side + 4))
    matrices = roots @ roots.swapaxes(1, 2) * 10.0 ** rng.uniform(-3, 3, (count, 1, 1))
    inverse, logarithm = invert_symmetric(beside(matrices.astype(np.float32)))
    expected = np.linalg.inv(matrices)
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(inverse.transpose(2, 0, 1) / scale, expected / scale, atol=2e-4)
    np.testing.assert_allclose(logarithm, np.linalg.slogdet(matrices)[1], atol=1e-3)
    assert inverse.dtype == logarithm.dtype == np.float32


def test_products_are_those_of_numpy():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 70, 4, 4)).astype(np.float32)
    found = multiply(beside(left), beside(right))
    np.testing.assert_allclose(found.transpose(2, 0, 1), left @ right, rtol=1e-4, atol=1e-5)
