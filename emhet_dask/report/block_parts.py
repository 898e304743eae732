"""What every picture of blocks has: the colour of a block, and what is written beside it.

Blocks are numbered from 1; label 0 is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.report.palette import STATE_COLOURS, state_colour
from emhet_dask.report.style import counted

__all__ = ["block_colour", "block_words", "checked_labels", "first_blocks", "repeated_colours"]


def block_colour(block: int) -> str:
    """Return the colour of a block, from 1, as ``#rrggbb``; grey for 0, which is none.

    Examples
    --------
    >>> block_colour(1), block_colour(25), block_colour(0)
    ('#0072b2', '#0072b2', '#b5b5b5')
    """
    return state_colour(block - 1)


def block_words(row: dict[Any, Any]) -> list[str]:
    """Return what is written of a block: its voxels, and the share of volumes that have it.

    Parameters
    ----------
    row : dict
        Of the table of blocks: ``voxels``, and ``fraction`` (0 to 1) where known.

    Examples
    --------
    >>> block_words({"block": 1, "voxels": 1200, "fraction": 0.4})
    ['1,200 voxels', 'in 40% of volumes']
    """
    words = [counted(row["voxels"], "voxel")]
    fraction = row.get("fraction")
    if fraction is not None and not pd.isna(fraction):
        words.append(f"in {_percent(float(fraction))} of volumes")
    return words


def first_blocks(blocks: pd.DataFrame, most: int) -> list[dict[Any, Any]]:
    """Return the rows of at most so many blocks, by number: block 1 is the largest."""
    return blocks.sort_values("block").head(most).to_dict("records")


def repeated_colours(n_blocks: int) -> str:
    """Return what a note says where blocks share colours."""
    if n_blocks <= len(STATE_COLOURS):
        return ""
    return f"Colours repeat after {len(STATE_COLOURS)} blocks; numbers tell them apart."


def checked_labels(labels: npt.ArrayLike, mean_map: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Return the labels (z, y, x) as whole numbers.

    Raises
    ------
    ValueError
        Where the mean map is of another shape, or a label is negative.
    """
    found = np.asarray(labels).astype(np.intp)
    if found.shape != np.shape(mean_map):
        raise ValueError(f"labels are {found.shape}, the mean map is {np.shape(mean_map)}")
    if found.min(initial=0) < 0:
        raise ValueError(f"labels: found {found.min()}, blocks are numbered from 1")
    return found


def _percent(fraction: float) -> str:
    """Return a share without rounding a few to none, or nearly all to all."""
    if 0 < fraction < 0.01:
        return "<1%"
    if 0.99 < fraction < 1:
        return ">99%"
    return f"{fraction:.0%}"
