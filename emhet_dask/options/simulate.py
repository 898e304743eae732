"""Options of ``emhet simulate`` and ``emhet demo``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run

__all__ = ["Demo", "SimulateAssembly", "SimulateTransition"]


@dataclass(frozen=True, kw_only=True)
class _Simulate(Run):
    output: str = option(
        help="Folder for the maps.", kind=kinds.path(expected="a folder"), flags=("-o",)
    )
    n: int = option(300, help="Number of maps.", kind=kinds.whole(minimum=1), flags=("-n",))
    box: int = option(64, help="Voxels a side.", kind=kinds.whole(minimum=16))
    apix: float = option(3.0, help="Voxel size in Å.", kind=kinds.number(minimum=0.1))
    resolution: float = option(
        12.0, help="Low-pass of maps and noise, in Å.", kind=kinds.number(minimum=0.2)
    )
    snr: float = option(
        8.0,
        help=(
            "Variance of the noiseless map over the whole box, divided by that of the noise, which "
            "is low-passed like the map."
        ),
        kind=kinds.number(minimum=1e-3),
    )
    amplitude_jitter: float = option(
        0.05,
        help="Standard deviation of the factor that each map is multiplied by.",
        kind=kinds.number(minimum=0, maximum=0.3),
    )
    seed: int = option(0, help="Seed of everything random.", kind=kinds.whole(minimum=0))


@dataclass(frozen=True, kw_only=True)
class SimulateAssembly(_Simulate):
    """Simulate maps of a complex whose subunits come and go."""

    summary = "Simulate maps of a complex whose subunits come and go by planted rules."
    examples = (
        "emhet simulate assembly -o maps -n 300",
        "emhet simulate assembly -o noisy -n 1000 --snr 0.3 --subunits 12",
    )

    subunits: int = option(8, help="Number of subunits.", kind=kinds.whole(minimum=2, maximum=16))
    touching: bool = option(
        False, help="Pack the subunits until they touch and interlock.", kind=kinds.flag()
    )


@dataclass(frozen=True, kw_only=True)
class SimulateTransition(_Simulate):
    """Simulate maps of two rigid bodies that move about a hinge."""

    summary = "Simulate maps of two rigid bodies that move about a hinge."
    examples = (
        "emhet simulate transition -o maps -n 300",
        "emhet simulate transition -o maps -n 300 --basins 3",
    )

    basins: int = option(
        0,
        help="Basins of the coordinate; 0: uniform, a continuous motion.",
        kind=kinds.whole(minimum=0, maximum=12),
    )


@dataclass(frozen=True, kw_only=True)
class Demo(Run):
    """Run the main commands on simulated maps and say how far they are from the truth."""

    summary = "Simulate maps, ingest them, find states and blocks; say how far from the truth."
    examples = ("emhet demo", "emhet demo -o demo -n 100")

    output: str = option(
        "demo", help="Folder for everything.", kind=kinds.path(expected="a folder"), flags=("-o",)
    )
    n: int = option(
        # With fewer than 38 no two voxels can be told to come together.
        150,
        help="Number of maps.",
        kind=kinds.whole(minimum=40),
        flags=("-n",),
    )
    seed: int = option(0, help="Seed of everything random.", kind=kinds.whole(minimum=0))
