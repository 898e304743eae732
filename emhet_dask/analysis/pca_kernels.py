"""The arithmetic of PCA on one band of rows or strip of columns: NumPy in, NumPy out.

Products are in float32 on centred values, sums over bands in float64. Rows stand for volumes,
columns for voxels; ``inverse_scale`` multiplies each row (one over its amplitude), ``weights``
counts each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

__all__ = [
    "Covariance",
    "Gram",
    "Moments",
    "Projection",
    "Sketch",
    "apply_covariance",
    "band_moments",
    "covariance_step",
    "gram_step",
    "held_band",
    "merge_covariances",
    "merge_grams",
    "merge_moments",
    "merge_sketches",
    "project",
    "sketch_band",
    "strip_components",
    "sum_parts",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Rows that are converted and centred at a time: they stay in the cache for the product.
_PIECE_ROWS = 128
_SEED_ROWS = 128


def as_float32(block: NDArray[Any], inverse_scale: NDArray[Any] | None) -> Float32:
    """Return a copy in float32, each row multiplied by its factor."""
    rows = np.array(block, dtype=np.float32)
    if inverse_scale is not None:
        rows *= np.asarray(inverse_scale, dtype=np.float32)[:, None]
    return rows


def clear_faulty_rows(rows: Float32) -> NDArray[np.bool_]:
    """Set rows that hold NaN or infinity to zero, in place, and say which they were."""
    with np.errstate(all="ignore"):
        faulty = ~np.isfinite(rows @ np.ones(rows.shape[1], dtype=np.float32))
    if faulty.any():  # the sum of sound rows may overflow: look at each value
        faulty[faulty] = ~np.isfinite(rows[faulty]).all(axis=1)
        rows[faulty] = 0.0
    return faulty


def centre(rows: Float32, weights: Float64) -> Float64:
    """Subtract the weighted mean row in place and return it.

    Twice, so that what the first mean lost to rounding is caught by the second.
    """
    total = weights.sum()
    mean = np.zeros(rows.shape[1])
    if total > 0:
        share = (weights / total).astype(np.float32)
        for _ in range(2):
            step = share @ rows
            rows -= step
            mean += step
    return mean


# Few volumes: the Gram matrix of centred rows ---------------------------------------------------


@dataclass
class Gram:
    """Inner products of the centred rows over some columns, and those columns' means."""

    products: Float64  # (volume, volume)
    means: list[Float64]  # one array for each strip, in order
    faulty: NDArray[np.bool_]  # (volume,)


def gram_step(
    state: Gram | None,
    strip: NDArray[Any],
    span: slice,
    *,
    weights: Float64,
    inverse_scale: NDArray[Any] | None,
) -> Gram:
    """Add one strip of columns to a Gram matrix; `state` is left as it was."""
    del span
    rows = as_float32(strip, inverse_scale)
    faulty = clear_faulty_rows(rows)
    mean = centre(rows, weights)
    products = (rows @ rows.T).astype(np.float64)
    if state is None:
        return Gram(products, [mean], faulty)
    products += state.products
    return Gram(products, [*state.means, mean], state.faulty | faulty)


def merge_grams(states: list[Gram]) -> Gram:
    """Add Gram matrices of neighbouring runs of columns."""
    products = states[0].products.copy()
    for state in states[1:]:
        products += state.products
    return Gram(
        products,
        [mean for state in states for mean in state.means],
        np.logical_or.reduce([state.faulty for state in states]),
    )


def strip_components(
    strip: NDArray[Any],
    coefficients: Float32,
    *,
    weights: Float64,
    inverse_scale: NDArray[Any] | None,
) -> Float32:
    """Combine the centred rows of a strip: (component, volume) times (volume, column)."""
    rows = as_float32(strip, inverse_scale)
    centre(rows, weights)
    return coefficients @ rows


# Few voxels: the covariance of columns ----------------------------------------------------------


@dataclass
class Covariance:
    """Weighted sum of squares and products of the columns over some rows."""

    weight: float
    mean: Float64  # (voxel,)
    products: Float64  # (voxel, voxel)
    faulty: list[int]


def covariance_step(
    state: Covariance | None,
    band: NDArray[Any],
    span: slice,
    *,
    weights: Float64,
    inverse_scale: NDArray[Any] | None,
) -> Covariance:
    """Add one band of rows to a covariance; `state` is left as it was."""
    rows = as_float32(band, _take(inverse_scale, span))
    faulty = clear_faulty_rows(rows)
    mean = centre(rows, weights[span])
    rows *= np.sqrt(weights[span]).astype(np.float32)[:, None]
    products = (rows.T @ rows).astype(np.float64)
    one = Covariance(float(weights[span].sum()), mean, products, _numbers(faulty, span))
    return one if state is None else merge_covariances([state, one])


def merge_covariances(states: list[Covariance]) -> Covariance:
    """Merge by the update of Chan, Golub and LeVeque (1979)."""
    products = states[0].products.copy()
    weight, mean = states[0].weight, states[0].mean
    for state in states[1:]:
        products += state.products
        factor, weight, mean, shift = _merge_means(weight, mean, state.weight, state.mean)
        if factor > 0:
            products += factor * np.outer(shift, shift)
    return Covariance(weight, mean, products, [n for state in states for n in state.faulty])


# Both large: mean and total variance, then the covariance applied to a few vectors ---------------


@dataclass
class Moments:
    """Mean row, sum of squares about it, and a random combination of the centred rows."""

    weight: float
    mean: Float64  # (voxel,)
    squares: float
    start: Float64  # (vector, voxel)
    faulty: list[int]


def band_moments(band: NDArray[Any], span: slice, **options: Any) -> Moments:
    """Moments of one band; see `held_band`."""
    return held_band(band, span, **options)[0]


def held_band(
    band: NDArray[Any],
    span: slice,
    *,
    weights: Float64,
    inverse_scale: NDArray[Any] | None,
    n_vectors: int,
    seed: int,
) -> tuple[Moments, Float32]:
    """Moments of one band, and its scaled rows about their own mean, to be held in memory.

    `n_vectors` random combinations of the rows start the iteration.
    """
    rows = as_float32(band, _take(inverse_scale, span))
    faulty = clear_faulty_rows(rows)
    counts = weights[span]
    mean = centre(rows, counts)
    root = np.sqrt(counts).astype(np.float32)
    signs = _random_signs(span, n_vectors, seed) * root
    squares, start = 0.0, np.zeros((n_vectors, rows.shape[1]))
    for first in range(0, len(rows), _PIECE_ROWS):
        piece = slice(first, first + _PIECE_ROWS)
        squares += float(counts[piece] @ _row_squares(rows[piece]))
        start += signs[:, piece] @ rows[piece]
    moments = Moments(float(counts.sum()), mean, squares, start, _numbers(faulty, span))
    return moments, rows


def merge_moments(states: list[Moments]) -> Moments:
    """Merge by the update of Chan, Golub and LeVeque (1979)."""
    weight, mean, squares = states[0].weight, states[0].mean, states[0].squares
    for state in states[1:]:
        factor, weight, mean, shift = _merge_means(weight, mean, state.weight, state.mean)
        squares += state.squares + factor * float(shift @ shift)
    return Moments(
        weight,
        mean,
        squares,
        sum_parts([state.start for state in states]),
        [n for state in states for n in state.faulty],
    )


def apply_covariance(
    band: NDArray[Any],
    span: slice,
    mean: Float32 | None,
    vectors: Float32,
    *,
    weights: Float64,
    inverse_scale: NDArray[Any] | None,
) -> Float32:
    """Apply one band's part of the scatter matrix to vectors (vector, voxel), in one reading.

    A mean of None says that the rows are taken as they are.
    """
    result = np.zeros_like(vectors)
    for piece, rows in _centred_pieces(band, span, mean, inverse_scale):
        along = rows @ vectors.T
        along *= weights[piece].astype(np.float32)[:, None]
        result += along.T @ rows
    return result


class Projection(NamedTuple):
    """Coordinates (volume, component) of rows, and the squared length of each centred row."""

    scores: Float32
    squares: Float64


def project(
    band: NDArray[Any],
    span: slice,
    mean: Float32 | None,
    components: Float32,
    *,
    inverse_scale: NDArray[Any] | None,
) -> Projection:
    """Project the centred rows of a band on components (component, voxel)."""
    scores, squares = [], []
    for _, rows in _centred_pieces(band, span, mean, inverse_scale):
        scores.append(rows @ components.T)
        squares.append(_row_squares(rows))
    return Projection(np.concatenate(scores), np.concatenate(squares))


def sum_parts(parts: list[NDArray[Any]]) -> Float64:
    """Add arrays in the order given, in float64."""
    total = parts[0].astype(np.float64)
    for part in parts[1:]:
        total += part
    return total


# One reading, bounded memory: a truncated decomposition that grows band by band ------------------


@dataclass
class Sketch:
    """The largest principal directions of some rows, each as long as its singular value.

    The scatter matrix of the rows exceeds ``rootsᵀ roots`` by a positive semi-definite matrix of
    norm at most `discarded`: each truncation drops such a matrix, and norms add.
    """

    weight: float
    mean: Float64  # (voxel,)
    squares: float
    roots: Float32  # (at most rank, voxel)
    discarded: float
    faulty: list[int]


def sketch_band(
    band: NDArray[Any],
    span: slice,
    *,
    weights: Float64,
    inverse_scale: NDArray[Any] | None,
    rank: int,
) -> Sketch:
    """Sketch one band of rows, some rows at a time."""
    sketch = None
    step = max(rank, _PIECE_ROWS)
    for start in range(0, len(band), step):
        piece = slice(span.start + start, min(span.start + start + step, span.stop))
        rows = as_float32(band[start : start + step], _take(inverse_scale, piece))
        faulty = clear_faulty_rows(rows)
        mean = centre(rows, weights[piece])
        rows *= np.sqrt(weights[piece]).astype(np.float32)[:, None]
        squares = float(_row_squares(rows).sum())
        weight = float(weights[piece].sum())
        one = Sketch(weight, mean, squares, rows, 0.0, _numbers(faulty, piece))
        sketch = merge_sketches([one] if sketch is None else [sketch, one], rank=rank)
    assert sketch is not None
    return sketch


def merge_sketches(states: list[Sketch], *, rank: int) -> Sketch:
    """Stack directions, with one row for the distance of the means, and truncate again."""
    first = states[0]
    weight, mean, squares = first.weight, first.mean, first.squares
    stack, between = [first.roots], []
    for state in states[1:]:
        factor, weight, mean, shift = _merge_means(weight, mean, state.weight, state.mean)
        squares += state.squares + factor * float(shift @ shift)
        stack.append(state.roots)
        between.append((np.sqrt(factor) * shift).astype(np.float32)[None])
    roots, discarded = _truncate(np.concatenate(stack + between), rank)
    return Sketch(
        weight,
        mean,
        squares,
        roots,
        discarded + sum(state.discarded for state in states),
        [n for state in states for n in state.faulty],
    )


def _truncate(rows: Float32, rank: int) -> tuple[Float32, float]:
    """Keep the largest `rank` directions; return them and the largest variance dropped."""
    if len(rows) <= rank:
        return rows, 0.0
    values, vectors = linalg.eigh((rows @ rows.T).astype(np.float64))
    kept = vectors[:, ::-1][:, :rank].astype(np.float32)
    return kept.T @ rows, max(0.0, float(values[-rank - 1]))


# Shared ------------------------------------------------------------------------------------------


def _centred_pieces(
    band: NDArray[Any], span: slice, mean: Float32 | None, inverse_scale: NDArray[Any] | None
) -> Iterator[tuple[slice, Float32]]:
    """Yield centred float32 rows, a cacheful at a time, in a buffer that is used again."""
    buffer = np.empty((min(_PIECE_ROWS, len(band)), band.shape[1]), dtype=np.float32)
    for start in range(0, len(band), _PIECE_ROWS):
        block = band[start : start + _PIECE_ROWS]
        piece = slice(span.start + start, span.start + start + len(block))
        if mean is None:
            yield piece, block
            continue
        rows = buffer[: len(block)]
        rows[:] = block
        if inverse_scale is not None:
            rows *= inverse_scale[piece].astype(np.float32)[:, None]
        rows -= mean
        yield piece, rows


def _row_squares(rows: Float32) -> Float64:
    """Squared length of each row; not by einsum, whose last bits depend on where rows lie."""
    return np.asarray(np.square(rows).sum(axis=1, dtype=np.float64))


def _merge_means(
    weight: float, mean: Float64, other_weight: float, other_mean: Float64
) -> tuple[float, float, Float64, Float64]:
    """Return the factor of the squared shift, the joint weight and mean, and the shift."""
    shift = other_mean - mean
    total = weight + other_weight
    if total == 0:
        return 0.0, 0.0, mean, shift
    return weight * other_weight / total, total, mean + (other_weight / total) * shift, shift


def _random_signs(span: slice, n_vectors: int, seed: int) -> Float32:
    """Random signs (vector, row) that depend on the row's number alone, not on the bands."""
    first = span.start // _SEED_ROWS
    groups = range(first, -(-span.stop // _SEED_ROWS))
    signs = [
        np.random.default_rng([seed, group]).integers(0, 2, (_SEED_ROWS, n_vectors), dtype=np.int8)
        for group in groups
    ]
    offset = first * _SEED_ROWS
    rows = np.concatenate(signs)[span.start - offset : span.stop - offset]
    return (2.0 * rows.T - 1.0).astype(np.float32)


def _take(factors: NDArray[Any] | None, span: slice) -> NDArray[Any] | None:
    return None if factors is None else factors[span]


def _numbers(faulty: NDArray[np.bool_], span: slice) -> list[int]:
    return [int(n) + span.start for n in np.flatnonzero(faulty)]
