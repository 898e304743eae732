"""Distances between all pairs of rows of a volume × voxel matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis import pca_kernels as kernels
from emhet_dask.analysis.bands import as_matrix, chain, column_strips
from emhet_dask.errors import InputError

__all__ = ["euclidean_distances"]

_CHAINS = 2


def euclidean_distances(
    matrix: Any, *, compute: Callable[..., tuple[Any, ...]] = dask.compute
) -> NDArray[np.float64]:
    """Euclidean distances between rows, from their inner products.

    The rows are centred first: ``|a − b|² = a·a + b·b − 2 a·b`` loses digits when all rows share a
    large mean, as maps of one molecule do.

    Parameters
    ----------
    matrix : array (volume, voxel)
        Streamed once, strip by strip of its columns; products of n × n are kept.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    ndarray, shape (n (n − 1) / 2,)
        In SciPy's condensed order.

    Raises
    ------
    InputError
        When rows hold NaN or infinity.
    """
    rows = as_matrix(matrix)
    equal = np.ones(rows.shape[0])
    (state,) = compute(
        chain(
            column_strips(rows),
            kernels.gram_step,
            kernels.merge_grams,
            n_chains=_CHAINS,
            weights=equal,
            inverse_scale=None,
        )
    )
    faulty = np.flatnonzero(state.faulty)
    if len(faulty):
        raise InputError(f"volume {int(faulty[0])} holds NaN or infinite densities")
    products = np.asarray(state.products)
    squares = np.diag(products)
    upper = np.triu_indices(len(products), 1)
    squared = squares[upper[0]] + squares[upper[1]] - 2.0 * products[upper]
    return np.sqrt(np.maximum(squared, 0.0))
