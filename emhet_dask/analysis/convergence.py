"""Whether a classification has settled, classes have collapsed, and their views suffice.

Thresholds are named constants with their reason; every judgement comes with the number behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

__all__ = [
    "COLLAPSED_SHARE_OF_EVEN",
    "FEWEST_ITERATIONS",
    "LEAST_SAMPLING_FACTOR",
    "MOST_CHANGING",
    "MOST_UNSAMPLED",
    "Coverage",
    "Settling",
    "collapsed_classes",
    "fourier_coverage",
    "settling",
    "symmetry_operations",
    "view_directions",
]

Array = NDArray[np.float64]

# Particles that still change class at the end of a run lie between classes. RELION runs as many
# iterations as it is told and has no criterion for classifications; at one particle in a hundred,
# what another iteration can change is below what another seed does. Xmipp's CL2D stops at 0.5%.
MOST_CHANGING = 0.01
# One quiet iteration may be chance; three in a row are a tenth of a usual run.
FEWEST_ITERATIONS = 3
# Changes that fall by less than this between windows no longer get better: RELION counts an
# iteration as idle when its changes are within 3% of the smallest so far (ml_optimiser.cpp), and
# means over three iterations of some thousand particles scatter by a few times that.
LEVEL_WITHIN = 0.1
# A class with less than a tenth of an even share.
COLLAPSED_SHARE_OF_EVEN = 0.1
# The spectral SNR of a map is proportional to this factor: below one half, more than half of the
# particles are lost to their views.
LEAST_SAMPLING_FACTOR = 0.5
# As much as a missing cone of 18° half angle.
MOST_UNSAMPLED = 0.05

_EVALUATED_DIRECTIONS = 2000
_PARTICLES_AT_ONCE = 4096
# Of more particles so many are counted, evenly spread: at shell 100 each direction is then sampled
# 250 times, and the factor is known to a hundredth of itself.
_PARTICLES_COUNTED = 50_000
# A direction that no particle samples counts as half a one, so that its weight stays finite.
_LEAST_SAMPLING = 0.5
_COARSEST_SHELL = 4.0


@dataclass(frozen=True)
class Settling:
    """Whether changes between iterations have died away.

    Attributes
    ----------
    state : str
        ``"settled"``; ``"moving"``: above the limit and falling (or rising); ``"level"``: above
        it and no longer falling, so that more iterations alone will not help; ``"unknown"``: too
        few iterations.
    recent : float
        Mean over the last `FEWEST_ITERATIONS` iterations that say; NaN without any.
    earlier : float
        Mean over as many before those; NaN where there are not as many.
    """

    state: Literal["settled", "moving", "level", "unknown"]
    recent: float
    earlier: float


@dataclass(frozen=True)
class Coverage:
    """How evenly the views of a class sample a Fourier shell.

    Attributes
    ----------
    sampling_factor : float
        1 for even sampling, 0.81 for side views of every angle, towards 0 for a single view.
    unsampled : float
        Share of the shell that no particle samples.
    """

    sampling_factor: float
    unsampled: float

    @property
    def poor(self) -> bool:
        """Tell whether the map suffers from its views."""
        return self.sampling_factor < LEAST_SAMPLING_FACTOR or self.unsampled > MOST_UNSAMPLED


def settling(changes: ArrayLike, *, limit: float = MOST_CHANGING) -> Settling:
    """Judge the changes of successive iterations.

    Parameters
    ----------
    changes : array (iteration,)
        Such as the share of particles that changed class; NaN where not known.
    limit : float
        Mean of the last three iterations up to which changes count as none.

    Returns
    -------
    Settling

    Examples
    --------
    >>> settling([1.0, 0.3, 0.1, 0.004, 0.002, 0.0]).state
    'settled'
    >>> settling([1.0, 0.6, 0.4, 0.3, 0.2, 0.1]).state
    'moving'
    >>> settling([1.0, 0.2, 0.2, 0.2, 0.21, 0.2, 0.19]).state
    'level'
    """
    known = np.asarray(changes, dtype=float)
    known = known[~np.isnan(known)]
    recent = float(np.mean(known[-FEWEST_ITERATIONS:])) if len(known) else float("nan")
    before = known[-2 * FEWEST_ITERATIONS : -FEWEST_ITERATIONS]
    earlier = float(np.mean(before)) if len(before) == FEWEST_ITERATIONS else float("nan")
    if len(known) < FEWEST_ITERATIONS:
        return Settling("unknown", recent, earlier)
    if recent <= limit:
        return Settling("settled", recent, earlier)
    if not np.isnan(earlier) and abs(recent - earlier) < LEVEL_WITHIN * earlier:
        return Settling("level", recent, earlier)
    return Settling("moving", recent, earlier)


def collapsed_classes(distribution: ArrayLike, *, share: float | None = None) -> NDArray[np.bool_]:
    """Tell which classes have lost their particles.

    Parameters
    ----------
    distribution : array (class,)
        Share of the particles of each class.
    share : float, optional
        Below this a class has collapsed. Default: `COLLAPSED_SHARE_OF_EVEN` of an even share, 1/K.

    Returns
    -------
    ndarray of bool (class,)
    """
    shares = np.asarray(distribution, dtype=float)
    limit = COLLAPSED_SHARE_OF_EVEN / max(len(shares), 1) if share is None else share
    return np.asarray(shares < limit)


def view_directions(rot_deg: ArrayLike, tilt_deg: ArrayLike) -> Array:
    """Return the directions (particle, 3: x, y, z) along which particles are projected.

    The third row of RELION's matrix of (rot, tilt, psi): (cos rot sin tilt, sin rot sin tilt,
    cos tilt).

    Parameters
    ----------
    rot_deg, tilt_deg : array (particle,)
        ``rlnAngleRot`` and ``rlnAngleTilt``.
    """
    rot, tilt = np.deg2rad(np.asarray(rot_deg, float)), np.deg2rad(np.asarray(tilt_deg, float))
    return np.stack([np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)], axis=-1)


def symmetry_operations(group: str) -> Array | None:
    """Return the rotations (operation, 3, 3) of a point group Cn or Dn as RELION sets them up.

    The n-fold axis is z, the two-fold axis of Dn is x.

    Parameters
    ----------
    group : str
        Such as ``"C1"`` or ``"D7"``.

    Returns
    -------
    ndarray or None
        None for other groups (T, O, I), whose many operations spread any view over the sphere.
    """
    match = re.fullmatch(r"([CD])([1-9]\d*)", group.upper())
    if match is None:
        return None
    order = int(match[2])
    about_z = Rotation.from_rotvec(
        np.arange(order)[:, None] * [[0.0, 0.0, 2 * np.pi / order]]
    ).as_matrix()
    if match[1] == "C":
        return np.asarray(about_z)
    return np.concatenate([about_z, about_z @ np.diag([1.0, -1.0, -1.0])])


def fourier_coverage(
    directions: ArrayLike, *, shell: float, operations: NDArray[Any] | None = None
) -> Coverage:
    """Measure how evenly projections along given directions sample a Fourier shell.

    A projection along v is a slice through the origin: it samples directions n with
    ``|n · v| < 1 / (2 shell)``, half a Fourier pixel. The sampling factor is one over the mean of
    the reciprocal sampling, divided by the mean sampling; the spectral SNR of a reconstruction
    from the same number of particles is proportional to it. Source: P. R. Baldwin & D. Lyumkis,
    *Non-uniformity of projection distributions attenuates resolution in cryo-EM*, Prog. Biophys.
    Mol. Biol. 150 (2020) 160–183, who call it the sampling compensation factor. Directions that
    nobody samples, where it would be 0, count here as half a particle, and their share is returned
    beside it. Few particles sample unevenly also where their views are random, which lowers the
    factor: that, too, their map suffers from.

    Parameters
    ----------
    directions : array (particle, 3)
        Unit vectors, as of `view_directions`.
    shell : float
        Radius of the shell in Fourier pixels of the particle: its diameter over the resolution. At
        least 4 is used.
    operations : array (operation, 3, 3), optional
        Of the point group; every particle is seen from all of them.

    Returns
    -------
    Coverage
        NaN without particles.
    """
    views = np.asarray(directions, dtype=np.float32).reshape(-1, 3)
    if not len(views):
        return Coverage(float("nan"), float("nan"))
    operations = np.eye(3)[None] if operations is None else np.asarray(operations)
    # Sampling at n by all copies of the views is that of the views at all copies of n.
    count = max(_EVALUATED_DIRECTIONS // len(operations), 100)
    points = np.einsum("oij,pj->poi", operations, _even_directions(count)).reshape(-1, 3)
    half_width = np.float32(1 / (2 * max(shell, _COARSEST_SHELL)))
    n_particles = len(views)
    if n_particles > _PARTICLES_COUNTED:
        views = views[np.linspace(0, n_particles - 1, _PARTICLES_COUNTED).astype(int)]
    sampling = np.zeros(len(points))
    for start in range(0, len(views), _PARTICLES_AT_ONCE):
        cosines = views[start : start + _PARTICLES_AT_ONCE] @ points.T.astype(np.float32)
        sampling += np.count_nonzero(np.abs(cosines) < half_width, axis=0)
    sampling = sampling.reshape(count, len(operations)).sum(axis=1) * n_particles / len(views)
    return Coverage(
        sampling_factor=_sampling_factor(sampling),
        unsampled=float(np.mean(sampling == 0)),
    )


def _sampling_factor(sampling: Array) -> float:
    kept = np.maximum(sampling, _LEAST_SAMPLING)
    return float(1 / (np.mean(1 / kept) * np.mean(kept)))


def _even_directions(count: int) -> Array:
    """Return a Fibonacci lattice on the half sphere (count, 3); n and −n are sampled alike.

    Source: Á. González, *Math. Geosci.* 42 (2010) 49–64.
    """
    position = np.arange(count) + 0.5
    z = 1 - position / count
    longitude = np.pi * (3 - np.sqrt(5)) * position
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(longitude), radius * np.sin(longitude), z], axis=-1)
