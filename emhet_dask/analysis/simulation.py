"""Ensembles of density maps whose states are known, from a procedural complex.

Two kinds. An *assembly* is a core with subunits that come and go under planted rules, so that its
states are patterns of presence. A *transition* is two rigid bodies joined by a hinge whose angle is
either spread evenly (no separate states) or gathered in basins.

Map ``i`` of a model depends on ``(seed, i)`` alone: an ensemble can be made in any order, by any
number of workers, in any chunks, and is the same.

The signal-to-noise ratio is the variance of the noiseless map over the whole box divided by that of
the noise, and the noise is low-passed like the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.spatial.distance import pdist, squareform
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.phantom import Grid, ellipsoid_atoms, label_map, packed_bodies
from emhet_dask.errors import InputError

__all__ = [
    "AssemblyModel",
    "TransitionModel",
    "assembly_model",
    "simulate",
    "simulate_map",
    "transition_model",
]

Array = npt.NDArray[Any]

_HINGE_DEGREES = 40.0

Odds = dict[tuple[int, ...], float]

# Odds of the patterns of one rule; unequal on purpose, as populations of real states are.
_REQUIRES: Odds = {(0, 0): 0.25, (1, 0): 0.35, (1, 1): 0.40}
_EXCLUDES: Odds = {(0, 0): 0.20, (1, 0): 0.45, (0, 1): 0.35}
_TOGETHER: Odds = {(0, 0): 0.45, (1, 1): 0.55}
_INDEPENDENT = (0.6, 0.5, 0.7, 0.4)


@dataclass(frozen=True)
class AssemblyModel:
    """A complex of subunits that are present or absent under planted rules.

    Attributes
    ----------
    grid : Grid
        Box, voxel size and resolution.
    densities : array (subunit, z, y, x), float32
        Density of each subunit alone.
    labels : array (z, y, x), int16
        Subunit that a voxel belongs to, from 1; 0 is none.
    presence : array (state, subunit), bool
        The patterns that the rules allow, likeliest first.
    probability : array (state,)
        Population of each state; sums to 1.
    rules : tuple of str
        The planted rules in words, with subunits counted from 1.
    """

    grid: Grid
    densities: Array
    labels: npt.NDArray[np.int16]
    presence: npt.NDArray[np.bool_]
    probability: Array
    rules: tuple[str, ...] = ()

    def draw(self, rng: np.random.Generator) -> tuple[Array, dict[str, Any]]:
        """Return a noiseless map (z, y, x) of a random state, and its truth."""
        state = int(np.searchsorted(np.cumsum(self.probability)[:-1], rng.random(), side="right"))
        present = self.presence[state]
        density = np.tensordot(present.astype(np.float32), self.densities, axes=1)
        subunits = {f"subunit_{k + 1:03d}": int(here) for k, here in enumerate(present)}
        return density, {"state": state, "coordinate": np.nan, **subunits}


@dataclass(frozen=True)
class TransitionModel:
    """Two rigid bodies joined by a hinge that opens with a coordinate from 0 to 1.

    Attributes
    ----------
    grid : Grid
        Box, voxel size and resolution.
    fixed : array (z, y, x), float32
        Density of the body that does not move.
    moving_atoms_angstrom : array (atom, 3)
        Pseudo-atoms (z, y, x) of the other body at coordinate 0.5; the hinge is the origin.
    atom_mass : float
        Scale of the moving body's density.
    axis : array (3,)
        Unit vector of the hinge.
    basins : int or None
        Number of basins; None spreads the coordinate evenly over [0, 1].
    basin_width : float
        Standard deviation of the coordinate within a basin, in units of the distance between
        neighbouring basins.
    """

    grid: Grid
    fixed: Array
    moving_atoms_angstrom: Array
    atom_mass: float
    axis: Array
    basins: int | None = None
    basin_width: float = 0.08

    def at(self, coordinate: float) -> Array:
        """Return the noiseless map (z, y, x) at one coordinate."""
        angle = np.deg2rad(_HINGE_DEGREES) * (coordinate - 0.5)
        atoms = Rotation.from_rotvec(angle * self.axis).apply(self.moving_atoms_angstrom)
        return self.fixed + np.float32(self.atom_mass) * self.grid.render(atoms)

    def draw(self, rng: np.random.Generator) -> tuple[Array, dict[str, Any]]:
        """Return a noiseless map (z, y, x) at a random coordinate, and its truth.

        The state is the basin; without basins all maps are of one state, 0.
        """
        if self.basins is None:
            state, coordinate = 0, float(rng.random())
        else:
            state = int(rng.integers(self.basins))
            offset = np.clip(rng.normal(scale=self.basin_width), -0.5, 0.5)
            coordinate = float((state + 0.5 + offset) / self.basins)
        return self.at(coordinate), {"state": state, "coordinate": coordinate}


Model = AssemblyModel | TransitionModel


def assembly_model(
    *,
    box: int = 64,
    voxel_size_angstrom: float = 3.0,
    resolution_angstrom: float = 12.0,
    n_subunits: int = 8,
    seed: int = 0,
    touching: bool = False,
) -> AssemblyModel:
    """Build a complex of compact subunits with planted rules of presence.

    Subunit 1, in the middle, is always there. Then, as far as the subunits reach: one needs
    another; two exclude each other; two that are far apart come together; the rest come and go
    independently. With 8 subunits that makes 36 states, a few of them rare; with 10 subunits 144;
    with 11 subunits 288, of which some 200 occur in 1,000 maps.

    Parameters
    ----------
    box : int
        Edge of the box in voxels.
    voxel_size_angstrom, resolution_angstrom : float
        Sampling and resolution of the maps.
    n_subunits : int
        At least 1, which has one state only.
    seed : int
        Of the shapes; the ensemble has another.
    touching : bool
        Leave no gap between neighbouring subunits; otherwise it is as wide as the resolution.

    Raises
    ------
    InputError
        Where a size is not positive, the box smaller than 16 voxels, or there is no subunit.
    """
    if n_subunits < 1:
        raise InputError(f"n_subunits: found {n_subunits}, need at least 1")
    grid = Grid(box, voxel_size_angstrom, resolution_angstrom)
    bodies = packed_bodies(
        np.random.default_rng([seed, 0]),
        n_bodies=n_subunits,
        radius_angstrom=grid.radius_angstrom,
        gap_angstrom=0.0 if touching else resolution_angstrom,
    )
    presence, probability, rules = _presence_states(np.stack([b.mean(axis=0) for b in bodies]))
    densities = np.stack([grid.render(body) for body in bodies])
    densities /= np.percentile(densities.sum(axis=0), 99.9)
    return AssemblyModel(grid, densities, label_map(densities), presence, probability, rules)


def transition_model(
    *,
    box: int = 64,
    voxel_size_angstrom: float = 3.0,
    resolution_angstrom: float = 12.0,
    basins: int | None = None,
    seed: int = 0,
) -> TransitionModel:
    """Build two rigid bodies joined by a hinge that opens by 40°.

    Parameters
    ----------
    box : int
        Edge of the box in voxels.
    voxel_size_angstrom, resolution_angstrom : float
        Sampling and resolution of the maps.
    basins : int, optional
        Number of well separated basins of the coordinate; None spreads it evenly over [0, 1].
    seed : int
        Of the shapes; the ensemble has another.

    Raises
    ------
    InputError
        Where a size or the number of basins is not positive, or the box below 16 voxels.
    """
    if basins is not None and basins < 1:
        raise InputError(f"basins: found {basins}, need at least 1, or None for a continuum")
    grid = Grid(box, voxel_size_angstrom, resolution_angstrom)
    rng = np.random.default_rng([seed, 1])
    frame = Rotation.from_quat(rng.standard_normal(4))
    radius = grid.radius_angstrom
    # The bodies meet at the origin, the hinge, and lie along z before the frame turns them.
    fixed_atoms = ellipsoid_atoms(rng, np.array([0.50, 0.45, 0.40]) * radius)
    moving_atoms = ellipsoid_atoms(rng, np.array([0.45, 0.30, 0.25]) * radius)
    fixed_atoms[:, 0] -= 0.50 * radius
    moving_atoms[:, 0] += 0.50 * radius
    fixed, moving = frame.apply(fixed_atoms), frame.apply(moving_atoms)
    mass = 1.0 / float(np.percentile(grid.render(np.concatenate([fixed, moving])), 99.9))
    return TransitionModel(
        grid=grid,
        fixed=np.float32(mass) * grid.render(fixed),
        moving_atoms_angstrom=moving,
        atom_mass=mass,
        axis=frame.apply(np.array([0.0, 1.0, 0.0])),
        basins=basins,
    )


def _presence_states(centres: Array) -> tuple[npt.NDArray[np.bool_], Array, tuple[str, ...]]:
    """Plant the rules on subunits at given centres (subunit, 3) and list the states they allow.

    The first subunit is the core. Pairs that need or exclude each other are neighbours; the pair
    that comes together is as far apart as can be, so that only its presence ties it.
    """
    free = list(range(1, len(centres)))
    distance = squareform(pdist(centres)) if len(centres) > 1 else np.zeros((1, 1))
    groups: list[tuple[tuple[int, ...], Odds]] = [((0,), {(1,): 1.0})]
    rules = ["subunit 1 is always present"]
    for pattern, far, words in (
        (_REQUIRES, False, "subunit {1} only with subunit {0}"),
        (_EXCLUDES, False, "subunit {0} or {1} or neither, never both"),
        (_TOGETHER, True, "subunits {0} and {1} come together"),
    ):
        if len(free) < 2:
            break
        pairs = [(a, b) for n, a in enumerate(free) for b in free[n + 1 :]]
        pair = (max if far else min)(pairs, key=lambda ab: distance[ab])
        groups.append((pair, pattern))
        rules.append(words.format(*(k + 1 for k in pair)))
        free = [k for k in free if k not in pair]
    for n, k in enumerate(free):
        chance = _INDEPENDENT[n % len(_INDEPENDENT)]
        groups.append(((k,), {(1,): chance, (0,): 1.0 - chance}))
        rules.append(f"subunit {k + 1} independently, in {chance:.0%} of the maps")
    states = []
    for choice in product(*(odds.items() for _, odds in groups)):
        present = np.zeros(len(centres), dtype=bool)
        for (members, _), (present_or_not, _) in zip(groups, choice, strict=True):
            present[list(members)] = present_or_not
        states.append((float(np.prod([chance for _, chance in choice])), present))
    states.sort(key=lambda state: (-state[0], state[1].tolist()))
    probability = np.array([chance for chance, _ in states])
    return np.stack([p for _, p in states]), probability / probability.sum(), tuple(rules)


def simulate_map(
    model: Model, i: int, *, snr: float, seed: int, amplitude_jitter: float = 0.05
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Simulate map ``i`` of an ensemble.

    Parameters
    ----------
    model : AssemblyModel or TransitionModel
        What the maps show.
    i : int
        Number of the map, from 0.
    snr : float
        Variance of the noiseless map over the whole box divided by that of the noise; infinite for
        no noise.
    seed : int
        Of the ensemble; the map depends on ``(seed, i)`` alone.
    amplitude_jitter : float
        The map is multiplied by 1 + N(0, this).

    Returns
    -------
    array (z, y, x), float32
        The map.
    dict
        Its row of the truth table: ``volume``, ``state``, ``amplitude``, ``coordinate`` (NaN for an
        assembly) and, for an assembly, ``subunit_001``, … (1 where present).

    Raises
    ------
    InputError
        Where the SNR is not positive or the jitter negative.
    """
    if not snr > 0:
        raise InputError(f"snr: found {snr}, need more than 0")
    if not amplitude_jitter >= 0:
        raise InputError(f"amplitude_jitter: found {amplitude_jitter}, need 0 or more")
    rng = np.random.default_rng([seed, i])
    density, truth = model.draw(rng)
    amplitude = 1.0 + amplitude_jitter * rng.standard_normal()
    noise_scale = np.sqrt(density.var(dtype=np.float64) / snr)
    noisy = np.float32(amplitude) * (density + np.float32(noise_scale) * model.grid.noise(rng))
    subunits = {name: value for name, value in truth.items() if name.startswith("subunit_")}
    return noisy, {
        "volume": i,
        "state": truth["state"],
        "amplitude": float(amplitude),
        "coordinate": truth["coordinate"],
        **subunits,
    }


def simulate(
    model: Model, n: int, *, snr: float = 8.0, seed: int = 0, amplitude_jitter: float = 0.05
) -> xr.Dataset:
    """Simulate an ensemble of ``n`` maps in memory; options as `simulate_map`.

    Returns
    -------
    xarray.Dataset
        ``volumes`` (volume, z, y, x), ``state``, ``coordinate`` and ``amplitude`` (volume), and
        ``presence`` (volume, subunit); the voxel size in Å is an attribute.
    """
    if n < 1:
        raise InputError(f"n: found {n}, need at least 1 map")
    volumes = np.empty((n, *model.grid.shape), dtype=np.float32)
    rows = []
    for i in range(n):
        volumes[i], row = simulate_map(
            model, i, snr=snr, seed=seed, amplitude_jitter=amplitude_jitter
        )
        rows.append(row)
    subunits = [name for name in rows[0] if name.startswith("subunit_")]
    presence = np.array([[row[name] for name in subunits] for row in rows], dtype=bool)
    return xr.Dataset(
        {
            "volumes": (("volume", "z", "y", "x"), volumes),
            "state": ("volume", np.array([row["state"] for row in rows])),
            "coordinate": ("volume", np.array([row["coordinate"] for row in rows])),
            "amplitude": ("volume", np.array([row["amplitude"] for row in rows])),
            "presence": (("volume", "subunit"), presence.reshape(n, len(subunits))),
        },
        attrs={"voxel_size_angstrom": model.grid.voxel_size_angstrom},
    )
