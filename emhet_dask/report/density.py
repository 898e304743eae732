"""The matrix of very many maps, as means over tiles: a picture whose size is that of the tiles."""

from __future__ import annotations

import textwrap

import numpy as np
import numpy.typing as npt
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from emhet_dask.report.matrix_parts import (
    BAND_INCHES,
    colours_of,
    draw_bands,
    draw_borders,
    draw_colour_bar,
    extend_of,
    limits,
    runs,
)
from emhet_dask.report.quantities import Quantity
from emhet_dask.report.style import DPI, counted, new_figure, panel, styled

__all__ = ["density_matrix", "tile_sizes"]

_SIDE_INCHES = 7.0


def tile_sizes(states: npt.ArrayLike, *, most_tiles: int = 400) -> npt.NDArray[np.intp]:
    """Cut maps that stand in the order of the tree into tiles that no border of clusters crosses.

    Parameters
    ----------
    states : array (map,)
        Cluster of each map, in the order of the tree.
    most_tiles : int
        Or as many as there are clusters, where these are more.

    Returns
    -------
    array (tile,)
        Maps in each tile, as even as clusters allow.

    Examples
    --------
    >>> tile_sizes([0] * 6 + [1] * 3, most_tiles=3)
    array([3, 3, 3])
    """
    states = np.asarray(states)
    lengths = np.array([end - start for _, start, end in runs(states, np.ones(len(states), int))])
    most = max(most_tiles, len(lengths))
    # Rounding up may pass the most by a tile for each cluster: tiles grow until it does not.
    largest = max(len(states) / most, 1.0)
    while (counts := np.ceil(lengths / largest).astype(int)).sum() > most:
        largest *= 1.02
    return np.concatenate(
        [
            np.diff(np.arange(count + 1) * length // count)
            for length, count in zip(lengths, counts, strict=True)
        ]
    ).astype(np.intp)


@styled
def density_matrix(
    means: npt.ArrayLike,
    *,
    sizes: npt.ArrayLike,
    states: npt.ArrayLike,
    quantity: Quantity,
    noun: str = "cluster",
    order: str = "in the order of the tree",
) -> Figure:
    """Draw means of the values of all pairs, over tiles.

    Parameters
    ----------
    means : array (tile, tile)
        Mean over the pairs of a map in one tile and a map in another, no map with itself; NaN
        where there is no such pair.
    sizes : array (tile,)
        Maps in each tile.
    states : array (tile,)
        Cluster of each tile, from 0; -1 for none.
    quantity : Quantity
        What the values are.
    noun : str
        What a group is called.
    order : str
        How the maps are ordered.
    """
    means = np.asarray(means, dtype=np.float64)
    sizes = np.asarray(sizes, dtype=np.intp)
    found = runs(np.asarray(states), sizes)
    n = int(sizes.sum())
    pixels = round(_SIDE_INCHES * DPI)
    thin = sum((end - start) * pixels < n for state, start, end in found if state >= 0)
    note = (
        f"Each point is the mean over the pairs of maps in two tiles; {len(sizes):,} tiles of "
        f"{sizes.min():,} to {sizes.max():,} maps. Colours from the 1st to the 99th percentile "
        "of these means."
    )
    if thin:
        note += f" {counted(thin, noun)} with too few maps to be seen."
    left, top = 0.85, 0.62
    lines = textwrap.wrap(note, int(13.0 * (left + _SIDE_INCHES + 1.2)))
    n_states = len({state for state, _, _ in found if state >= 0})
    figure = new_figure(
        width_inches=left + _SIDE_INCHES + 1.35,
        height_inches=top + _SIDE_INCHES + 0.55 + 0.15 * len(lines),
        title=f"{counted(n, 'map')} in {counted(n_states, noun)}, {order}",
        note="\n".join(lines),
    )
    axes = panel(
        figure,
        left_inches=left,
        top_inches=top,
        width_inches=_SIDE_INCHES,
        height_inches=_SIDE_INCHES,
    )
    weights = np.outer(sizes, sizes)
    low, high = limits(means.ravel(), weights=weights.ravel(), whole=False)
    norm = Normalize(low, high)
    # The tile in the middle of each pixel; tiles are of different sizes.
    tile = np.searchsorted(np.cumsum(sizes), (np.arange(pixels) + 0.5) * n / pixels, side="right")
    axes.imshow(
        np.ma.masked_invalid(means[np.ix_(tile, tile)]),
        norm=norm,
        cmap=colours_of(quantity),
        extent=(0, n, n, 0),
        interpolation="nearest",
        aspect="auto",
    )
    axes.set_xlim(0, n)
    axes.set_ylim(n, 0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(axis="y", pad=72 * BAND_INCHES + 2, length=0)
    axes.set_xlabel(f"maps, {order}")
    for spine in axes.spines.values():
        spine.set_visible(False)
    draw_bands(axes, found)
    draw_borders(axes, found, noun=noun)
    draw_colour_bar(
        figure,
        norm,
        quantity,
        extend=extend_of(means, low, high),
        left_inches=left + _SIDE_INCHES + 0.45,
        top_inches=top,
        height_inches=3.2,
    )
    return figure
