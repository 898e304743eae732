"""Options of the free-energy-like landscape, for every command that draws one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import Command, option

__all__ = ["EnergyChoices"]

_ENDS = "0-1 (basins), state:0-3 (states), or none"


def _axes(given: Any) -> tuple[int, ...]:
    axes: tuple[int, ...] = kinds.numbers().parse(given)
    if len(axes) not in {2, 3} or len(set(axes)) != len(axes) or min(axes) < 1:
        raise ValueError(given)
    return axes


def _ends(given: Any) -> str:
    if not isinstance(given, str) or not re.fullmatch(r"(state:)?\d+-\d+|none", given):
        raise ValueError(given)
    return given


@dataclass(frozen=True, kw_only=True)
class EnergyChoices(Command):
    """Over which components a landscape is drawn, and what counts as a basin."""

    axes: tuple[int, ...] = option(
        (1, 2),
        help="Two or three components that the free-energy-like landscape is over, such as 1,2.",
        kind=kinds.Kind(
            _axes, "two or three different components from 1, such as 1,2", "str or sequence of int"
        ),
    )
    density: str = option(
        "kernel",
        help="How particles are counted: Gaussian kernels on a fine grid, or a plain histogram.",
        kind=kinds.choice("kernel", "histogram"),
    )
    bins: int | None = option(
        None,
        help="Bins along each axis of the landscape; default: from the data.",
        kind=kinds.whole(minimum=8, maximum=512),
    )
    min_depth: float = option(
        0.5,
        help=(
            "Depth in kT that a basin has at least, beside three times the standard error of its "
            "depth."
        ),
        kind=kinds.number(minimum=0),
    )
    n_bootstrap: int = option(
        100, help="Bootstrap replicates behind the errors in kT.", kind=kinds.whole(minimum=10)
    )
    path: str | None = option(
        None,
        help=(
            "Ends of the lowest path: 0-1 for basins, state:0-3 for states, or none; default: the "
            "two deepest basins."
        ),
        kind=kinds.Kind(_ends, _ENDS, "str"),
    )
    path_maps: int = option(
        12, help="Maps along the lowest path.", kind=kinds.whole(minimum=2, maximum=200)
    )
