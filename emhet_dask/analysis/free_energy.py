"""Density of points over two or three components, as a free energy in kT with its error.

``F = -ln(p / p_max)``. It is *like* a free energy: were the particles an equilibrium ensemble, each
counted alike, it would be one. Selection of particles, the prior and the blur of the decoder, and
the choice of components change it, and nothing is reweighted.

Everything is done on counts of a grid, which are summed block by block, so that ten million points
need no more memory than the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from emhet_dask.analysis.bandwidth import bandwidth_of, spread_of
from emhet_dask.analysis.binned import Blocks, Compute, Grid, grid_counts, marginals
from emhet_dask.errors import InputError

__all__ = ["FreeEnergy", "free_energy"]

Array = npt.NDArray[np.float64]

# What lies beyond these quantiles does not stretch the grid.
_TAIL = 5e-4
_MARGIN = 0.1
_FINE = 1 << 12
_COARSE = 1 << 16
_KERNEL_REACH = 4.0
# Below this, binning would add to the width of the kernel: 1/12 of a bin squared.
_BINS_PER_BANDWIDTH = 3.0
_MOST_BINS = {1: 512, 2: 256, 3: 64}
_FEWEST_BINS = 24
# p is known to 1/sqrt(5) = 45% there; with less, no value is given.
_FEWEST_EFFECTIVE = 5.0


@dataclass(frozen=True)
class FreeEnergy:
    """A landscape over two or three components.

    Attributes
    ----------
    grid : Grid
    weight : ndarray, shape of the grid
        Sum of the weights of the points in each bin.
    density : ndarray, shape of the grid
        Probability density, per unit of all axes together.
    effective : ndarray, shape of the grid
        Points that stand behind the density, as their variance counts them.
    free_energy : ndarray, shape of the grid
        In kT above the deepest bin; NaN where fewer than five points stand behind it.
    error : ndarray, shape of the grid
        Bootstrap standard error of the difference from the deepest bin, in kT; 0 there.
    replicates : ndarray of float32, shape (replicate, defined)
        Free energy of each bin that has a value, in row-major order, in each bootstrap replicate.
    bandwidth : ndarray, shape (axis,)
        Standard deviation of the kernel; 0 for a histogram.
    method : {"kernel", "histogram"}
    n_points, n_outside : int
        All points, and those beyond the grid.
    """

    grid: Grid
    weight: Array
    density: Array
    effective: Array
    free_energy: Array
    error: Array
    replicates: npt.NDArray[np.float32]
    bandwidth: Array
    method: str
    n_points: int
    n_outside: int
    _place: npt.NDArray[np.intp] = field(repr=False)

    @property
    def defined(self) -> npt.NDArray[np.bool_]:
        """Tell which bins have a value."""
        return np.isfinite(self.free_energy)

    @property
    def deepest(self) -> int:
        """Return the flat bin of the deepest point."""
        return int(np.nanargmin(self.free_energy))

    def differences(self, bins: npt.ArrayLike, reference: npt.ArrayLike) -> Array:
        """Return bootstrap values (replicate, bin) of the difference between bins with values.

        Parameters
        ----------
        bins, reference : array of int
            Flat bins.
        """
        place = self._place
        above = self.replicates[:, place[np.asarray(bins)]]
        return np.asarray(above - self.replicates[:, place[np.asarray(reference)]], np.float64)


def free_energy(
    points: Any,
    *,
    weights: npt.ArrayLike | None = None,
    method: str = "kernel",
    bins: int | None = None,
    n_bootstrap: int = 100,
    seed: int = 0,
    compute: Compute = dask.compute,
) -> FreeEnergy:
    """Estimate density and free energy of points, with bootstrap errors.

    A kernel's width along each axis is that of Botev, Grotowski and Kroese (2010, improved
    Sheather–Jones) for the axis alone, times ``n^(1/5 - 1/(4 + d))`` for `d` axes. It adds its
    square to the variance of every basin, which lowers barriers that are not much wider than it. A
    histogram's bins are of Scott's width, ``3.49 sd n^(-1/(2 + d))``.

    The bootstrap draws each point a Poisson(1) number of times; sums of these are Poisson numbers
    of each bin, so that only the counts are drawn. This is exact where all weights are equal, and
    otherwise right in mean and variance of every bin. Replicate `b` has the seed ``[seed, b]``.

    Parameters
    ----------
    points : array (point, axis), NumPy or Dask
        Two or three axes (one is allowed too).
    weights : array (point,), optional
        Particles of each point; finite, not negative.
    method : {"kernel", "histogram"}
    bins : int, optional
        Along each axis; otherwise a third of the kernel's width at most, up to 256 along each of
        two axes and 64 along each of three.
    n_bootstrap : int
        Replicates.
    seed : int
    compute : callable
        With the signature of `dask.compute`.

    Returns
    -------
    FreeEnergy

    Raises
    ------
    InputError
        When there are fewer than 20 points, values that are not finite, an axis without spread, a
        weight that is negative or not finite, or no bin with enough points.
    """
    blocks = Blocks.of(points, weights, compute)
    low, high = _extent(blocks)
    lines = marginals(blocks, low, high, n_bins=_FINE)
    n_effective = blocks.n_effective
    bandwidth = np.zeros(blocks.n_axes)
    if method == "kernel":
        for axis, counts in enumerate(lines):
            alone = bandwidth_of(counts, high[axis] - low[axis], n_effective)
            bandwidth[axis] = alone * n_effective ** (1 / 5 - 1 / (4 + blocks.n_axes))
    grid, bandwidth = _grid(blocks, (low, high), lines, bandwidth, bins)
    weight, squared, n_inside = grid_counts(points, grid, weights=weights, compute=compute)
    smooth = bandwidth / grid.widths
    density, effective = _smoothed(weight, squared, smooth)
    defined = effective >= _FEWEST_EFFECTIVE
    if not defined.any():
        raise InputError(
            f"no bin has {_FEWEST_EFFECTIVE:g} of the {blocks.n_points} points behind it: too few "
            "for a landscape; take fewer bins or components"
        )
    replicates = _bootstrap(
        weight,
        squared=squared,
        smooth=smooth,
        defined=defined,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    total = weight.sum() * float(np.prod(grid.widths))
    energy = np.full(grid.shape, np.nan)
    energy[defined] = -np.log(density[defined] / density[defined].max())
    # Read as 0, not -0, at the deepest bin.
    energy += 0.0
    place = np.cumsum(defined.ravel()) - 1
    place[~defined.ravel()] = -1
    reference = place[int(np.nanargmin(energy))]
    error = np.full(grid.shape, np.nan)
    error[defined] = (replicates - replicates[:, [reference]]).std(axis=0, ddof=1, dtype=np.float64)
    return FreeEnergy(
        grid=grid,
        weight=weight,
        density=density / total,
        effective=effective,
        free_energy=energy,
        error=error,
        replicates=replicates,
        bandwidth=bandwidth,
        method=method,
        n_points=blocks.n_points,
        n_outside=blocks.n_points - n_inside,
        _place=place,
    )


def _extent(blocks: Blocks) -> tuple[Array, Array]:
    """Return where the grid begins and ends along each axis, without a far tail."""

    def ends(block: Array, _: Array | None) -> tuple[Array, Array]:
        return block.min(axis=0).astype(np.float64), block.max(axis=0).astype(np.float64)

    found = list(blocks.each(ends))
    low = np.min([one for one, _ in found], axis=0)
    high = np.max([two for _, two in found], axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError("coordinates of a landscape: not all of them are finite")
    if not (high > low).all():
        raise InputError(
            f"axis {int(np.argmin(high > low)) + 1} of the landscape: all coordinates are equal; "
            "take another component"
        )
    inner_low, inner_high = low.copy(), high.copy()
    for axis, counts in enumerate(marginals(blocks, low, high, n_bins=_COARSE)):
        share = np.cumsum(counts) / counts.sum()
        edges = np.linspace(low[axis], high[axis], _COARSE + 1)
        inner_low[axis] = edges[np.searchsorted(share, _TAIL, side="right")]
        inner_high[axis] = edges[np.searchsorted(share, 1 - _TAIL, side="left") + 1]
    margin = _MARGIN * (inner_high - inner_low)
    return np.maximum(low, inner_low - margin), np.minimum(high, inner_high + margin)


def _grid(
    blocks: Blocks,
    ends: tuple[Array, Array],
    lines: list[Array],
    bandwidth: Array,
    n: int | None,
) -> tuple[Grid, Array]:
    """Choose bins, and widen kernels that are narrower than one."""
    low, high = ends
    kernel = bool(bandwidth.any())
    most = _MOST_BINS[blocks.n_axes]
    edges = []
    for axis, counts in enumerate(lines):
        extent = high[axis] - low[axis]
        if kernel:
            width = bandwidth[axis] / _BINS_PER_BANDWIDTH
        else:
            centres = (np.arange(len(counts)) + 0.5) / len(counts) * extent
            deviation = spread_of(counts / counts.sum(), centres)
            width = 3.49 * deviation * blocks.n_effective ** (-1 / (2 + blocks.n_axes))
        # Kernels of the outermost points reach beyond them.
        beyond = _KERNEL_REACH * bandwidth[axis]
        begin, end = low[axis] - beyond, high[axis] + beyond
        wanted = math.ceil((end - begin) / width) if width > 0 else most
        number = n or min(max(wanted, _FEWEST_BINS if kernel else 4), most)
        edges.append(np.linspace(begin, end, number + 1))
    grid = Grid(tuple(edges))
    return grid, np.maximum(bandwidth, grid.widths) if kernel else bandwidth


# Density and bootstrap ----------------------------------------------------------------------------


def _smoothed(weight: Array, squared: Array, smooth: Array) -> tuple[Array, Array]:
    """Return the density (weight per bin), and how many points stand behind it.

    That many points of equal weight would give the same relative variance:
    ``(K * w)² / (K² * w²)``, where the square of a Gaussian is a narrower Gaussian. In the tail of
    a kernel, where many points reach a little, it is no more than ``p / integral of K²``.
    """
    if not smooth.any():
        with np.errstate(invalid="ignore", divide="ignore"):
            return weight, np.where(squared > 0, weight**2 / squared, 0.0)
    density = _blurred(weight, smooth)
    peak = float(np.prod(1 / (2 * np.sqrt(np.pi) * smooth)))
    each = float(squared.sum() / weight.sum())
    variance = peak * _blurred(squared, smooth / math.sqrt(2))
    with np.errstate(invalid="ignore", divide="ignore"):
        counted = np.where(variance > 0, density**2 / variance, 0.0)
    return density, np.minimum(counted, density / (peak * each))


def _blurred(values: Array, smooth: Array) -> Array:
    blurred: Array = gaussian_filter(
        values, smooth, mode="constant", truncate=_KERNEL_REACH, output=np.float64
    )
    return blurred


def _bootstrap(
    weight: Array,
    *,
    squared: Array,
    smooth: Array,
    defined: npt.NDArray[np.bool_],
    n_bootstrap: int,
    seed: int,
) -> npt.NDArray[np.float32]:
    """Return free energies (replicate, defined bin) of redrawn counts."""
    full = np.flatnonzero(weight.ravel())
    n_points = weight.ravel()[full] ** 2 / squared.ravel()[full]
    each = squared.ravel()[full] / weight.ravel()[full]
    # A bin that is drawn empty has half a point: its free energy is high, not infinite.
    lowest = 0.5 * float(squared.sum() / weight.sum())
    if smooth.any():
        lowest *= float(np.prod(1 / (math.sqrt(2 * math.pi) * smooth)))
    found = np.empty((n_bootstrap, int(defined.sum())), dtype=np.float32)
    for replicate in range(n_bootstrap):
        rng = np.random.default_rng([seed, replicate])
        drawn = np.zeros(weight.size)
        drawn[full] = rng.poisson(n_points) * each
        counts = drawn.reshape(weight.shape)
        if smooth.any():
            counts = _blurred(counts, smooth)
        found[replicate] = -np.log(np.maximum(counts[defined], lowest))
    return found
