"""Whether groups of points are separate, or pieces of one continuum.

Any clustering cuts a continuum into groups; what tells states from slices is the emptiness between
neighbours. The measure is the distance of the centres of two groups along the line that joins them,
over the standard deviation of their members along that line. Two halves of an even spread reach
√12 = 3.5 and two halves of a Gaussian 2.7, however fine the slicing. Separate states have no such
bound.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

__all__ = ["SLICES", "Gap", "Scatter", "critical_separation", "gaps_between", "merge_touching"]

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.intp]

SLICES = float(np.sqrt(12.0))
# All below is calibrated on continua (lines, bent and folded curves with and without noise, sheets,
# balls, Gaussian, heavy-tailed and exponential clouds of 20 to 1,000 points), of which at most one
# in a thousand may pass for states, and on simulated assemblies.
_CRITICAL = 4.0
_SMALL_SAMPLE = 8.0
# Degrees of freedom that the scatter of all groups is worth beside the members of two.
_PRIOR_DOF = 6.0
_PRIOR_DOF_NOISE = 12.0
# Scatter towards the neighbours over scatter in all directions: 1.0 to 1.3 for noise, 1.7 to 6 for
# slices of a motion.
_ISOTROPIC = 1.4
# Strengths between which merging may end.
_TOUCHING = (1.0, 1.5)
_TOUCHING_NOISE = (0.75, 1.5)
_NEIGHBOURS = 8


@dataclass(frozen=True)
class Gap:
    """How far apart two groups are.

    Attributes
    ----------
    separation : float
        Distance of the centres over the standard deviation of the members along that line.
    critical : float
        What pieces of a continuum would hardly reach, given so few members.
    """

    separation: float
    critical: float

    @property
    def strength(self) -> float:
        """Separation over its critical value; above 1 the groups are taken as separate."""
        return self.separation / self.critical


@dataclass(frozen=True)
class Scatter:
    """What is known of the scatter within groups before two of them are looked at.

    Attributes
    ----------
    variance : float
        Per dimension, pooled over all groups.
    is_noise : bool
        Whether members scatter alike in all directions, as noise does. The slices of a continuum
        are thick along it and thin across.
    """

    variance: float
    is_noise: bool

    @property
    def dof(self) -> float:
        """Degrees of freedom that this is worth beside a group's own members."""
        return _PRIOR_DOF_NOISE if self.is_noise else _PRIOR_DOF


def critical_separation(dof: float) -> float:
    """Return the separation that two pieces of a continuum hardly reach by chance.

    Parameters
    ----------
    dof : float
        Degrees of freedom of the standard deviation in the denominator.
    """
    return _CRITICAL * float(np.sqrt(1.0 + _SMALL_SAMPLE / dof))


def gaps_between(points: Array, labels: Labels) -> dict[tuple[int, int], Gap]:
    """Measure the gaps between neighbouring groups.

    Parameters
    ----------
    points : array (point, dimension)
        Coordinates.
    labels : array (point,)
        Group of each point, from 0, none empty.

    Returns
    -------
    dict
        The gap of each pair (i, j), i < j, of groups where one is among the eight nearest of the
        other.
    """
    groups = _groups(points, labels)
    pairs = _neighbours(groups)
    scatter = _scatter(groups, pairs)
    return {(i, j): _gap(groups[i], groups[j], scatter) for i, j in pairs}


def merge_touching(points: Array, labels: Labels) -> tuple[Labels, dict[tuple[int, int], Gap]]:
    """Merge groups that are not separate, weakest gap first, until all that are left are.

    Merged groups are separate from a third only if all their parts are: a folded continuum has arms
    that are far apart, but joined elsewhere. In a continuum the whole must be separate as well,
    since slivers can be apart by chance; where members scatter as noise does, it need not, or two
    states merged in error would make a wide group that swallows its neighbours.

    Parameters
    ----------
    points : array (point, dimension)
        Coordinates.
    labels : array (point,)
        Group of each point, from 0, none empty.

    Returns
    -------
    array (point,)
        The group of each point after merging, from 0.
    dict
        The gaps of pairs of neighbours among them. Groups that no pair joins are further apart.
    """
    groups = dict(enumerate(_groups(points, labels)))
    pairs = _neighbours(list(groups.values()))
    scatter = _scatter(list(groups.values()), pairs)
    weakest = {(i, j): _gap(groups[i], groups[j], scatter) for i, j in pairs}
    near: dict[int, set[int]] = {k: set() for k in groups}
    for i, j in pairs:
        near[i].add(j)
        near[j].add(i)
    queue = [(gap.strength, pair) for pair, gap in weakest.items()]
    heapq.heapify(queue)
    name = len(groups)
    touching = _touching([gap.strength for gap in weakest.values()], scatter)
    while queue and queue[0][0] < touching:
        _, (i, j) = heapq.heappop(queue)
        if i not in groups or j not in groups:
            continue
        merged = groups[name] = _Group(
            np.concatenate([groups[i].points, groups[j].points]),
            np.concatenate([groups[i].index, groups[j].index]),
        )
        del groups[i], groups[j], weakest[i, j]
        near[name] = (near.pop(i) | near.pop(j)) - {i, j}
        for other in near[name]:
            parts = [weakest.pop(p) for k in (i, j) if (p := _pair(k, other)) in weakest]
            whole = _gap(merged, groups[other], scatter)
            weakest[other, name] = min(
                parts if scatter.is_noise else [whole, *parts], key=lambda gap: gap.strength
            )
            near[other] = (near[other] - {i, j}) | {name}
            heapq.heappush(queue, (weakest[other, name].strength, (other, name)))
        name += 1
    number = {k: n for n, k in enumerate(groups)}
    merged_labels = np.empty(len(points), dtype=np.intp)
    for k, group in groups.items():
        merged_labels[group.index] = number[k]
    return merged_labels, {(number[i], number[j]): gap for (i, j), gap in weakest.items()}


class _Group:
    """Members of one group, with their centre and sum of squares about it."""

    def __init__(self, points: Array, index: Labels) -> None:
        self.points = points
        self.index = index
        self.size = len(points)
        self.centre = points.mean(axis=0)
        self.sum_of_squares = float(np.sum((points - self.centre) ** 2))


def _groups(points: Array, labels: Labels) -> list[_Group]:
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return [_Group(points[index], index) for index in np.split(order, starts)]


def _pair(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def _neighbours(groups: list[_Group]) -> list[tuple[int, int]]:
    if len(groups) < 2:
        return []
    centres = np.stack([group.centre for group in groups])
    nearest = cKDTree(centres).query(centres, min(_NEIGHBOURS + 1, len(groups)))[1]
    return sorted(
        {_pair(i, int(j)) for i, row in enumerate(np.atleast_2d(nearest)) for j in row if i != j}
    )


def _scatter(groups: list[_Group], pairs: list[tuple[int, int]]) -> Scatter:
    """Pool the scatter within groups, and see whether it is alike in all directions."""
    dof = sum(group.size - 1 for group in groups)
    dimension = groups[0].points.shape[1]
    total = sum(group.sum_of_squares for group in groups)
    variance = max(total / (dimension * max(dof, 1)), np.finfo(float).tiny)
    along, along_dof = 0.0, 0
    for i, j in pairs:
        if groups[i].size > 1 and groups[j].size > 1:
            for positions in _positions(groups[i], groups[j]):
                if len(positions) > 2:
                    along += float(np.sum((positions - positions.mean()) ** 2))
                    along_dof += len(positions) - 1
    isotropic = along_dof > 0 and along / along_dof < _ISOTROPIC * variance
    return Scatter(variance, isotropic)


def _touching(strengths: list[float], scatter: Scatter) -> float:
    """Return the strength below which groups are merged: where the strengths leave a gap.

    Pieces of one state lie below it, neighbouring states above; where there is no such order, as in
    noise that hides the smaller differences, it is best low.
    """
    low, high = _TOUCHING_NOISE if scatter.is_noise else _TOUCHING
    ordered = np.sort(strengths)
    between = ordered[(ordered > low) & (ordered < high)]
    above = ordered[ordered >= high]
    points = np.log(np.concatenate([[low], between, above[:1] if above.size else [high]]))
    widest = int(np.argmax(np.diff(points)))
    return min(float(np.exp(0.5 * (points[widest] + points[widest + 1]))), high)


def _gap(a: _Group, b: _Group, scatter: Scatter) -> Gap:
    """Measure one gap; the members' own scatter is moderated by that of all groups."""
    dof = a.size + b.size - 2
    dimension = a.points.shape[1]
    own = a.sum_of_squares + b.sum_of_squares
    local = (_PRIOR_DOF * scatter.variance + own) / (_PRIOR_DOF + dimension * dof)
    local = max(local, scatter.variance)
    if a.size > 1 and b.size > 1:
        along_a, along_b = _positions(a, b)
        distance = max(along_a.mean() - along_b.mean(), 0.0)
        squares = np.sum((along_a - along_a.mean()) ** 2) + np.sum((along_b - along_b.mean()) ** 2)
    else:
        distance, squares = _gap_of_single(a, b, local)
    variance = (scatter.dof * local + squares) / (scatter.dof + dof)
    return Gap(float(distance / np.sqrt(variance)), critical_separation(scatter.dof + dof))


def _positions(a: _Group, b: _Group) -> Iterator[Array]:
    """Positions of the members along the line between the centres, for either group.

    Each member is left out of the centre that its own line starts from: a line drawn through the
    noise of a few members makes them look apart.
    """
    for group, other, sign in ((a, b, 1.0), (b, a, -1.0)):
        without = group.centre - (group.points - group.centre) / (group.size - 1)
        line = without - other.centre
        length = np.maximum(np.linalg.norm(line, axis=1), np.finfo(float).tiny)
        middle = 0.5 * (without + other.centre)
        yield sign * np.einsum("ij,ij->i", group.points - middle, line) / length


def _gap_of_single(a: _Group, b: _Group, variance: float) -> tuple[float, float]:
    """Measure distance, less what noise adds in the other dimensions, and squares on the line."""
    line = a.centre - b.centre
    squared = float(line @ line)
    noise = (len(line) - 1) * variance * (1.0 / a.size + 1.0 / b.size)
    unit = line / max(np.sqrt(squared), np.finfo(float).tiny)
    squares = sum(float(np.sum(((g.points - g.centre) @ unit) ** 2)) for g in (a, b))
    return float(np.sqrt(max(squared - noise, 0.0))), squares
