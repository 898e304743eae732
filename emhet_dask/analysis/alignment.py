"""Fit maps to a reference: rotation, shift and, where asked for, hand.

1. Every rotation of an even grid, with every shift of a coarse lattice: one product of the matrix
   of rotated references with the shifted coefficients of the map, at the lowest shells.
2. The best distinct rotations, and the map as it lies, are refined by Levenberg–Marquardt on
   rotation, shift and scale together, at more and more shells, while the worse ones drop out.
   Shells count by how well the best fit explains them (see `weights_of`).
3. The best fit is compared with its rivals: where the map tells no difference that its noise or
   its disagreement with the reference would not make, the fit is flagged.

Inside, a pose is where the *reference* lies in the frame of the map; `Fit` states the inverse, the
motion that brings the map to the reference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.poses import (
    Fits,
    correlations,
    distinct,
    error_power,
    floored,
    hand_lead,
    keep,
    leads,
    ramps,
    step,
    weights_of,
)
from emhet_dask.analysis.rigid import Motion, mirror
from emhet_dask.analysis.rotations import angle_between, even_rotations, rotation_count
from emhet_dask.analysis.spectra import Band, SpectrumTable, band, central_density, coefficients
from emhet_dask.errors import InputError

__all__ = ["FINEST_SHELLS", "REASONS", "Fit", "Fitter", "Reference", "make_reference"]

# At shell 8 a particle of half the box is resolved to its seventh; the grid's largest error, 10°,
# moves its rim by less than half of that.
_SEARCH_SHELLS = 8
_SPACING_DEGREES = 12.3
_SHIFTS_PER_BOX = 20
_LARGEST_SHIFT = 0.25  # of the box
# Of these shells on, a fit at SNR 1 hardly improves (0.1° and 0.03 voxels of 64), but takes longer.
FINEST_SHELLS = 24
_LEAST_SHELLS = 3
# (shells, steps, fits that go on) of each round; None is all shells.
_ROUNDS: tuple[tuple[int | None, int, int], ...] = ((8, 6, 6), (16, 5, 3), (None, 4, 3))
_STARTS = 12
# Fits nearer than this are one.
_DISTINCT_DEGREES = 2.0 * _SPACING_DEGREES
# A fit must lead its rivals by so many standard errors, or is flagged (docs/performance.md): right
# fits lead by 10 and more, almost down to where they fail; nothing else that was tried by 8.
_SURE_MARGIN = 8.0
# Fits that lead by less are as good.
_EQUAL_MARGIN = 2.0
# Correlations nearer than this differ by how the table is read.
_SAME = 0.998

# What `Fit.reason` may be.
REASONS = ("", "a rival orientation fits as well", "the other hand fits as well")


@dataclass(frozen=True, eq=False)
class Reference:
    """What maps are fitted to, band-limited and small enough to send to every worker.

    Attributes
    ----------
    density : ndarray (z, y, x)
        Inside the inscribed sphere, on the smallest box that holds its resolution.
    box : int
        Voxels a side of the maps that are to be fitted.
    """

    density: NDArray[np.float32]
    box: int

    @property
    def shells(self) -> int:
        """Return the last Fourier shell that is compared."""
        return self.density.shape[0] // 2 - 1


def make_reference(
    volume: NDArray[np.float32],
    *,
    voxel_size_angstrom: float,
    resolution_angstrom: float | None = None,
) -> Reference:
    """Make a map the reference.

    Parameters
    ----------
    volume : ndarray (z, y, x)
        A cube.
    voxel_size_angstrom : float
    resolution_angstrom : float, optional
        Finest detail that is compared; at most Nyquist. Default: Fourier shell 24.

    Raises
    ------
    InputError
        When the volume is not finite or has no density, or the resolution or the box leaves less
        than three shells.
    """
    volume = np.asarray(volume, dtype=np.float32)
    box = volume.shape[0]
    _refuse_nonsense(volume, "the reference")
    most = (box - 1) // 2
    extent = box * voxel_size_angstrom
    wanted = FINEST_SHELLS
    if resolution_angstrom is not None:
        wanted = int(extent / resolution_angstrom * (1.0 + 1e-9))
    if min(most, wanted) < _LEAST_SHELLS:
        raise InputError(
            f"a box of {box} voxels of {voxel_size_angstrom:g} Å holds {min(most, wanted)} Fourier "
            f"shells up to {max(extent / max(wanted, 1), 2 * voxel_size_angstrom):.3g} Å; expected "
            f"at least {_LEAST_SHELLS}, to {extent / _LEAST_SHELLS:.3g} Å or finer"
        )
    density = central_density(volume, min(most, wanted))
    if not density.any():
        raise InputError("the reference has no density at the resolution that is compared")
    return Reference(density / density.std(), box)


def _refuse_nonsense(volume: NDArray[np.float32], what: str) -> None:
    if not np.isfinite(volume).all():
        raise InputError(f"{what} holds NaN or infinite densities, expected finite numbers")
    if volume.min() == volume.max():
        raise InputError(f"{what} is constant, expected a map with density")


@dataclass(frozen=True, eq=False)
class Fit:
    """How a map comes to lie on the reference.

    Attributes
    ----------
    motion : Motion
        Moves the map onto the reference.
    correlation, rival_correlation : float
        Fourier correlation with the reference, shells counted as for the fit, at this and at the
        best other orientation, more than 25° away; NaN where there is none.
    margin : float
        Lead over that orientation, in standard errors.
    hand_margin : float
        Lead over the other hand, in standard errors; NaN where it was not tried.
    reason : str
        Why the fit is not to be trusted; empty otherwise.
    """

    motion: Motion
    correlation: float
    rival_correlation: float
    margin: float
    hand_margin: float
    reason: str

    @property
    def flagged(self) -> bool:
        """Tell whether the fit is no better than its rivals."""
        return bool(self.reason)


class Fitter:
    """A reference with all that is computed once and used for every map.

    Parameters
    ----------
    reference : Reference
        Takes about 1 s and 150 MB to prepare, whatever the box.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._band = band(reference.shells)
        self._frequencies = self._band.frequencies.astype(np.float32)
        self._table = SpectrumTable(reference.density)
        self._power = self._band.sums(np.abs(self._table.read(self._frequencies)[..., 0]) ** 2)
        self._coarse = band(min(_SEARCH_SHELLS, reference.shells))
        self._turns = even_rotations(rotation_count(_SPACING_DEGREES))
        self._rotated = self._rotate_reference()
        self._shifts = _ball_lattice(int(_SHIFTS_PER_BOX * _LARGEST_SHIFT)) / _SHIFTS_PER_BOX
        self._ramps = ramps(self._coarse.frequencies, -self._shifts)

    def fit(self, volume: NDArray[np.float32], *, hand: bool = False) -> Fit:
        """Fit one map.

        Parameters
        ----------
        volume : ndarray (z, y, x)
            Of the reference's box.
        hand : bool
            Try the mirror image too, and take it where it is clearly better.

        Returns
        -------
        Fit

        Raises
        ------
        InputError
            When the map is not finite, or has no density.
        """
        _refuse_nonsense(volume, "the map")
        shells = self.reference.shells
        images = [volume, mirror(volume)] if hand else [volume]
        data = np.stack([coefficients(image, shells) for image in images])
        power = float(np.linalg.norm(data[0]))
        if power == 0.0:
            raise InputError("the map has no density at the resolution that is compared")
        data /= np.float32(power)
        fits = self._search(data)
        weights = None
        for wanted, steps, count in _ROUNDS:
            here = band(min(shells, wanted or shells))
            part = data[:, : here.ends[-1]]
            if weights is None:
                weights = self._even_weights(part[0], self._coarse)
            else:
                model = self._model(fits[:1], here.ends[-1])[0][..., 0]
                weights = weights_of(model[0], part[fits.hand[0]], here)
            weights = weights[: here.ends[-1]]
            fits = self._refine(fits, part, weights, steps)
            fits = keep(fits, count=count, apart_degrees=_DISTINCT_DEGREES)
        assert weights is not None
        return self._judge(fits, data, weights)

    def _rotate_reference(self) -> NDArray[np.float32]:
        """Return the coarse coefficients of the reference at every rotation, whitened, as rows.

        Shape (rotation, 2 * frequency): real and imaginary parts, of unit norm.
        """
        k = self._coarse.frequencies.astype(np.float32)
        weight = np.sqrt(self._coarse.spread(1.0 / self._mean_amplitude(self._coarse)))
        rows = np.empty((len(self._turns), len(k)), dtype=np.complex64)
        for start in range(0, len(rows), 32):
            turns = self._turns[start : start + 32].astype(np.float32)
            rows[start : start + 32] = self._table.read(k @ turns)[..., 0] * weight
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.view(np.float32)

    def _mean_amplitude(self, here: Band) -> NDArray[np.float64]:
        return floored(np.sqrt(self._power[: here.shells] / np.diff(here.ends)))

    def _even_weights(self, data: NDArray[np.complex64], here: Band) -> NDArray[np.float32]:
        """Return weights that make every coefficient count the same, as nothing is known yet."""
        data = data[: here.ends[-1]]
        amplitude = floored(np.sqrt(here.sums(np.abs(data) ** 2) / np.diff(here.ends)))
        return here.spread(1.0 / (amplitude * self._mean_amplitude(here)))

    def _search(self, data: NDArray[np.complex64]) -> Fits:
        """Return the best distinct rotations of the grid and the pose at rest, of every hand."""
        turns, shifts, hands = [], [], []
        for hand, image in enumerate(data[:, : self._coarse.ends[-1]]):
            weight = np.sqrt(self._even_weights(image, self._coarse))
            # Σ Re(conj(reference) map e^(2πi k s)) as a real product.
            shifted = (image * weight * self._ramps).T
            product = self._rotated @ np.stack([shifted.real, shifted.imag], axis=1).reshape(
                -1, len(self._shifts)
            )
            best = product.argmax(axis=1)
            score = product[np.arange(len(best)), best]
            chosen = distinct(self._turns, score, count=_STARTS, apart_degrees=_DISTINCT_DEGREES)
            turns += [self._turns[chosen], np.eye(3)[None]]
            shifts += [self._shifts[best[chosen]], np.zeros((1, 3))]
            hands += [hand] * (len(chosen) + 1)
        count = len(hands)
        empty = np.zeros((count, 0), dtype=np.complex64)
        return Fits(
            np.concatenate(turns),
            np.concatenate(shifts),
            np.asarray(hands),
            np.zeros(count),
            empty,
        )

    def _model(
        self, fits: Fits, count: int, *, gradient: bool = False
    ) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Return the reference in the frame of the map, and where its table was read.

        Shapes (fit, frequency, 1), or 4 with the gradient, and (fit, frequency, 3).
        """
        k = self._frequencies[:count]
        places = k @ fits.turn.astype(np.float32)
        found = self._table.read(places, gradient=gradient)
        found *= ramps(k, fits.shift)[..., None]
        return found, places

    def _refine(
        self,
        fits: Fits,
        data: NDArray[np.complex64],
        weights: NDArray[np.float32],
        steps: int,
    ) -> Fits:
        """Improve every fit by Levenberg–Marquardt; none becomes worse."""
        image = data[fits.hand]

        def at(turn: NDArray[np.float64], shift: NDArray[np.float64]) -> tuple[Fits, Any, Any]:
            here = replace(fits, turn=turn, shift=shift)
            found, places = self._model(here, len(weights), gradient=True)
            model = found[..., 0]
            scored = replace(here, model=model, score=correlations(model, image, weights))
            return scored, found, places

        fits, found, places = at(fits.turn, fits.shift)
        damping = np.full(len(fits.turn), 1e-3)
        for _ in range(steps):
            turn, shift = step(
                found,
                places,
                image,
                frequencies=self._frequencies,
                weights=weights,
                damping=damping,
            )
            trial, new_found, new_places = at(
                fits.turn @ Rotation.from_rotvec(turn).as_matrix(), fits.shift + shift
            )
            better = trial.score > fits.score
            damping = np.where(better, 0.3 * damping, np.maximum(10.0 * damping, 0.1))
            fits = fits.merged(trial, use=better)
            found[better], places[better] = new_found[better], new_places[better]
        return fits

    def _judge(self, fits: Fits, data: NDArray[np.complex64], weights: NDArray[np.float32]) -> Fit:
        """Choose among the last fits, and say whether the choice is sure."""
        errors = error_power(fits.model[0], data[fits.hand[0]], self._band, weights)
        hand, hand_margin, reason = 0, np.nan, REASONS[0]
        if len(data) > 1:
            best = fits[[int(np.argmax(fits.hand == number)) for number in (0, 1)]]
            lead = hand_lead(best, data, weights, errors)
            hand_margin = abs(lead)
            if _is_better(hand_margin, best.score):
                hand = int(lead < 0)
            else:
                reason = REASONS[2]
        mine = fits[fits.hand == hand]
        behind = leads(mine, data[hand], weights, errors)
        # Of fits that are as good, the one that turns the map least.
        equal = np.flatnonzero(
            [
                not _is_better(lead, mine.score[[0, row]], _EQUAL_MARGIN)
                for row, lead in enumerate(behind)
            ]
        )
        chosen = int(equal[np.argmin(angle_between(mine.turn[equal], np.eye(3)))])
        rival = next((row for row in range(len(behind)) if row != chosen), None)
        margin = np.nan if rival is None else float(behind[rival] - behind[chosen])
        if rival is not None and not _is_better(margin, mine.score[[chosen, rival]]):
            reason = REASONS[1]
        motion = Motion(
            mine.turn[chosen].T,
            -mine.turn[chosen].T @ mine.shift[chosen] * self.reference.box,
            mirrored=bool(hand),
        )
        return Fit(
            motion.settled(self.reference.box),
            float(mine.score[chosen]),
            np.nan if rival is None else float(mine.score[rival]),
            margin,
            float(hand_margin),
            reason,
        )


def _is_better(margin: float, scores: NDArray[np.float64], least: float = _SURE_MARGIN) -> bool:
    """Tell whether a fit that leads another by a margin is the better one."""
    return bool(margin > least and scores.min() < _SAME * scores.max())


def _ball_lattice(radius: int) -> NDArray[np.int64]:
    """Return the points (point, 3) of the cubic lattice inside a ball."""
    axis = np.arange(-radius, radius + 1)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return points[(points**2).sum(axis=1) <= radius**2]
