"""Poses of a reference in a map: their scores, their improvement, and how sure the best one is.

Arrays of coefficients are (fit, frequency), in the band of `emhet_dask.analysis.spectra`. A pose is
a rotation and a shift of the reference, in boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.rotations import angle_between
from emhet_dask.analysis.spectra import Band, density_of

__all__ = [
    "Fits",
    "correlations",
    "distinct",
    "error_power",
    "floored",
    "hand_lead",
    "keep",
    "leads",
    "ramps",
    "step",
    "weights_of",
]

# Maps of one molecule differ; no shell is believed to agree better than this.
_BEST_AGREEMENT = 0.95


@dataclass(frozen=True, eq=False)
class Fits:
    """Poses of the reference in the map: along the first axis, one each.

    turn (fit, 3, 3), shift (fit, 3) in boxes, hand (fit,): 0 as the map is, 1 its mirror image;
    score (fit,) and model (fit, frequency) at the last round.
    """

    turn: NDArray[np.float64]
    shift: NDArray[np.float64]
    hand: NDArray[np.int64]
    score: NDArray[np.float64]
    model: NDArray[np.complex64]

    def __getitem__(self, chosen: Any) -> Fits:
        return Fits(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def merged(self, other: Fits, *, use: NDArray[np.bool_]) -> Fits:
        """Take the fits of another where told."""
        pick = {}
        for name in self.__dataclass_fields__:
            mine = getattr(self, name)
            where = use.reshape(-1, *(1,) * (mine.ndim - 1))
            pick[name] = np.where(where, getattr(other, name), mine)
        return Fits(**pick)


def _agreement(
    model: NDArray[np.complex64], data: NDArray[np.complex64], here: Band
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the correlation of each shell, from 0 to what is believed, and both amplitudes."""
    counts = np.diff(here.ends)
    reference = floored(np.sqrt(here.sums(np.abs(model) ** 2) / counts))
    image = floored(np.sqrt(here.sums(np.abs(data) ** 2) / counts))
    product = here.sums((model.conj() * data).real) / counts
    return np.clip(product / (reference * image), 0.0, _BEST_AGREEMENT), reference, image


def weights_of(
    model: NDArray[np.complex64], data: NDArray[np.complex64], here: Band
) -> NDArray[np.float32]:
    """Weigh shells as maximum likelihood does where map = a * reference + noise.

    With the correlation ``c`` of a shell and the amplitudes ``A`` of the reference and ``M`` of
    the map, a = c M / A and the noise has the power M² (1 - c²), so that a term of the product
    counts a / noise = c / ((1 - c²) A M).
    """
    agreement, reference, image = _agreement(model, data, here)
    if not agreement.any():  # such a fit is flagged, but must not divide by zero before
        agreement[:] = 1e-3
    return here.spread(agreement / ((1.0 - agreement**2) * reference * image))


def error_power(
    model: NDArray[np.complex64],
    data: NDArray[np.complex64],
    here: Band,
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the power per coefficient that a fit leaves unexplained, as that of random phases.

    M² (1 - c²) in the terms of `weights_of`. Noise fills the box, and its coefficients are
    independent. What another molecule has otherwise fills a part of the box; there are fewer
    independent coefficients by that share, and the power counts for so much more.
    """
    agreement, _, image = _agreement(model, data, here)
    scale = _scale(model[None], data, weights)[0]
    left = (weights * (data - np.float32(scale) * model)).astype(np.complex64)
    density = density_of(left, here.shells).astype(np.float64)
    second, fourth = float(np.mean(density**2)), float(np.mean(density**4))
    # Of Gaussian values of variance s² in a share f of the box, these are f s² and 3 f s⁴.
    share = min(1.0, 3.0 * second**2 / fourth) if fourth > 0 else 1.0
    return here.spread((1.0 - agreement**2) * image**2 / max(share, 1e-3))


def floored(amplitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep shells without power, as filtered maps have them, from counting more than the others."""
    return np.maximum(amplitudes, 1e-3 * amplitudes.max())


def correlations(
    model: NDArray[np.complex64], data: NDArray[np.complex64], weights: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the weighted correlation of each row."""
    inner = (weights * (model.conj() * data).real).sum(axis=-1, dtype=np.float64)
    return inner / (_norm(model, weights) * _norm(data, weights))


def _norm(values: NDArray[np.complex64], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    power = (weights * (values.real**2 + values.imag**2)).sum(axis=-1, dtype=np.float64)
    return np.asarray(np.maximum(np.sqrt(power), 1e-30))


def leads(
    fits: Fits,
    image: NDArray[np.complex64],
    weights: NDArray[np.float32],
    errors: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Return by how many standard errors the first fit is better than each; 0 for itself.

    The difference of two scores is the product of the map with the difference of two references;
    what the fit leaves unexplained, at random phases, gives it its standard error.
    """
    unit = fits.model / _norm(fits.model, weights)[:, None].astype(np.float32)
    apart = unit[:1] - unit
    lead = (weights * (apart.conj() * image).real).sum(axis=-1, dtype=np.float64)
    variance = 0.5 * (weights**2 * errors * np.abs(apart) ** 2).sum(axis=-1, dtype=np.float64)
    return np.asarray(lead / np.maximum(np.sqrt(variance), 1e-30))


def hand_lead(
    fits: Fits,
    data: NDArray[np.complex64],
    weights: NDArray[np.float32],
    errors: NDArray[np.float32],
) -> float:
    """Return by how many standard errors the direct fit is better than the mirrored one."""
    unit = fits.model / _norm(fits.model, weights)[:, None].astype(np.float32)
    product = (weights * (unit.conj() * data).real).sum(axis=-1, dtype=np.float64)
    variance = 0.5 * (weights**2 * errors * np.abs(unit) ** 2).sum(dtype=np.float64)
    return float((product[0] - product[1]) / max(np.sqrt(variance), 1e-30))


def step(
    found: NDArray[np.complex64],
    places: NDArray[np.float32],
    image: NDArray[np.complex64],
    *,
    frequencies: NDArray[np.float32],
    weights: NDArray[np.float32],
    damping: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the damped least-squares step of each fit: rotation vector and shift.

    Turning the reference by a small vector ``w`` in its own frame looks it up at ``q - w × q``,
    which adds ``-w · (q × gradient)``; a shift ``s`` multiplies by ``exp(-2πi k·s)``. The scale of
    the model is fitted too.

    Parameters
    ----------
    found : ndarray (fit, frequency, 4)
        The model in the frame of the map, and its gradient in its own.
    places : ndarray (fit, frequency, 3)
        Where it was looked up.
    image : ndarray (fit, frequency)
        The map.
    frequencies : ndarray (frequency, 3)
    weights : ndarray (frequency,)
    damping : ndarray (fit,)
        Marquardt's, relative to the diagonal of the normal equations.
    """
    model, gradient = found[..., 0], found[..., 1:]
    k, root = frequencies[: model.shape[1]], np.sqrt(weights)
    scale = _scale(model, image, weights)
    slopes = np.empty((len(model), 7, model.shape[1]), dtype=np.complex64)
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        np.multiply(places[..., two], gradient[..., one], out=slopes[:, axis])
        slopes[:, axis] -= places[..., one] * gradient[..., two]
        np.multiply(np.complex64(-2j * np.pi) * k[:, axis], model, out=slopes[:, 3 + axis])
    slopes[:, 6] = model
    slopes *= root
    left = (root * (image - scale[:, None].astype(np.float32) * model)).astype(np.complex64)
    rows = slopes.view(np.float32)
    normal = (rows @ rows.swapaxes(1, 2)).astype(np.float64)
    slope = (rows @ left.view(np.float32)[..., None])[..., 0].astype(np.float64)
    diagonal = np.einsum("fii->fi", normal)
    # The smallest part keeps the matrix regular where a map says nothing about a direction.
    diagonal += damping[:, None] * diagonal + 1e-6 * diagonal.max(axis=1, keepdims=True)
    moved = np.linalg.solve(normal, slope[..., None])[:, :6, 0]
    moved /= np.where(np.abs(scale) > 1e-30, scale, 1.0)[:, None]
    # Beyond these the model is no longer linear: 17° and a twentieth of the box.
    return _at_most(moved[:, :3], 0.3), _at_most(moved[:, 3:], 0.05)


def _scale(
    model: NDArray[np.complex64], image: NDArray[np.complex64], weights: NDArray[np.float32]
) -> NDArray[np.float64]:
    inner = (weights * (model.conj() * image).real).sum(axis=-1, dtype=np.float64)
    return np.asarray(inner / _norm(model, weights) ** 2)


def _at_most(vectors: NDArray[np.floating], length: float) -> NDArray[np.float64]:
    found = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors * np.minimum(1.0, length / np.maximum(found, 1e-30)))


def ramps(frequencies: ArrayLike, shifts: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Return the phases (shift, frequency) that move a map by shifts (shift, 3) in boxes."""
    angle = -2.0 * np.pi * (shifts.astype(np.float32) @ np.asarray(frequencies, np.float32).T)
    return np.exp(1j * angle.astype(np.float32)).astype(np.complex64)


def distinct(
    turns: NDArray[np.float64],
    score: NDArray[np.float64],
    *,
    count: int,
    apart_degrees: float,
) -> NDArray[np.int64]:
    """Return the best fits, best first, of which no two are near each other."""
    left = np.argsort(-score, kind="stable")
    chosen: list[int] = []
    while len(left) and len(chosen) < count:
        chosen.append(int(left[0]))
        left = left[angle_between(turns[left], turns[left[0]]) > apart_degrees]
    return np.asarray(chosen)


def keep(fits: Fits, *, count: int, apart_degrees: float) -> Fits:
    """Keep the best distinct fits of either hand, and the one that turns least; best first."""
    kept: list[int] = []
    for hand in np.unique(fits.hand):
        rows = np.flatnonzero(fits.hand == hand)
        best = distinct(
            fits.turn[rows], fits.score[rows], count=len(rows), apart_degrees=apart_degrees
        )
        rows = rows[best]
        least = rows[np.argmin(angle_between(fits.turn[rows], np.eye(3)))]
        kept += [*rows[:count], *([least] if least not in rows[:count] else [])]
    return fits[np.asarray(sorted(kept, key=lambda row: -fits.score[row]))]
