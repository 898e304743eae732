"""The tree of tuples of class labels, and where it is divided into classes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emhet_dask.analysis.microclusters import merges_of_distances
from emhet_dask.errors import InputError

__all__ = ["Division", "TupleTree", "build_tuple_tree", "divide"]

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int64]

# All pairs of so many take 32 MB; of noisy jobs they hold nearly all particles.
_MOST_TUPLES = 2_000
_FEWEST_BY_CHANCE = 0.5
# Decides between equal distances, and nothing else.
_TIE = 1e-4
# A job tells two groups apart where their distributions over its classes overlap by less than half.
_APART = 0.5
# Where half of the votes speak against it, a small branch is not part of the class it hangs on.
_OUTSIDE = 0.5 - 10 * _TIE


@dataclass(frozen=True)
class Division:
    """A place where the tree was, or might have been, divided.

    Attributes
    ----------
    height : float
        Mean share of the votes against joining both sides.
    sizes : (int, int)
        Particles on either side, the larger first.
    apart : array (job that votes,)
        How far each job tells them apart: 1 less the overlap of their distributions over its
        classes.
    made : bool
    """

    height: float
    sizes: tuple[int, int]
    apart: Array
    made: bool

    @property
    def n_jobs(self) -> int:
        """Number of jobs that tell the sides apart."""
        return int(np.count_nonzero(self.apart >= _APART))


@dataclass(frozen=True)
class TupleTree:
    """Average linkage of tuples, weighted by their particles.

    Attributes
    ----------
    labels : array (job, leaf)
        Class of each leaf in each job that votes, from 0.
    size : array (leaf,)
        Particles of each leaf.
    merges : array (leaf - 1, 4)
        As SciPy's linkage matrix; the last column counts particles.
    """

    labels: Codes
    size: Counts
    merges: Array

    @property
    def n_leaves(self) -> int:
        """Number of tuples in the tree."""
        return len(self.size)

    def children(self, node: int) -> tuple[int, int]:
        """Return both children of a node that is no leaf, the larger first."""
        one, two = (int(each) for each in self.merges[node - self.n_leaves, :2])
        return (one, two) if self.particles(one) >= self.particles(two) else (two, one)

    def particles(self, node: int) -> int:
        """Return how many particles a node has."""
        if node < self.n_leaves:
            return int(self.size[node])
        return int(self.merges[node - self.n_leaves, 3])

    def height(self, node: int) -> float:
        """Return the height of a node, 0 for a leaf."""
        return 0.0 if node < self.n_leaves else float(self.merges[node - self.n_leaves, 2])

    def leaves(self, node: int) -> Codes:
        """Return the leaves below a node."""
        found, left = [], [node]
        while left:
            each = left.pop()
            if each < self.n_leaves:
                found.append(each)
            else:
                left.extend(self.children(each))
        return np.sort(np.array(found, dtype=np.intp))

    def apart(self, one: int, two: int) -> Array:
        """Return how far each job (job,) tells two nodes apart: total variation, 0 to 1."""
        first, second = self.leaves(one), self.leaves(two)
        found = []
        for row in self.labels:
            shares = []
            for leaves in (first, second):
                counts = np.bincount(row[leaves], self.size[leaves], int(row.max()) + 1)
                shares.append(counts / counts.sum())
            found.append(0.5 * np.abs(shares[0] - shares[1]).sum())
        return np.array(found)


def build_tuple_tree(
    labels: Codes,
    size: Counts,
    *,
    weight: Array,
    similarity: Sequence[Array | None],
    certainty: Sequence[Array | None],
) -> TupleTree:
    """Build the tree of the heaviest tuples.

    Parameters
    ----------
    labels : array (job, tuple)
        Class of each tuple in each job, from 0; the largest tuples first.
    size : array (tuple,)
        Particles.
    weight : array (job,)
        Of the votes, with the sum 1.
    similarity : sequence of (array (class, class) or None)
        Of the class maps of each job.
    certainty : sequence of (array (tuple,) or None)
        Of each tuple in each job, 0 to 1.
    """
    candidates = np.arange(len(size))
    if len(labels) == 2:
        in_class = [np.bincount(row, size) for row in labels]
        by_chance = in_class[0][labels[0]] * in_class[1][labels[1]] / size.sum()
        candidates = np.flatnonzero(size >= _FEWEST_BY_CHANCE * by_chance)
    candidates = candidates[:_MOST_TUPLES]
    kept = labels[:, candidates]
    distance = np.zeros((len(candidates),) * 2)
    for job, row in enumerate(kept):
        differ = row[:, None] != row
        alike = similarity[job]
        doubt = np.zeros_like(distance) if alike is None else alike[np.ix_(row, row)]
        sure = certainty[job]
        if sure is not None:
            doubt = doubt - np.outer(sure[candidates], sure[candidates])
        distance += weight[job] * differ * (1 - _TIE * doubt)
    counts = size[candidates]
    return TupleTree(kept, counts, merges_of_distances(distance, counts, linkage="average"))


def divide(
    tree: TupleTree, *, min_size: int, n_classes: int | None = None
) -> tuple[list[Codes], tuple[Division, ...]]:
    """Divide the tree into classes, the highest divisions first.

    Parameters
    ----------
    tree : TupleTree
    min_size : int
        Fewest particles on either side of a division.
    n_classes : int, optional
        Number of classes. Without, a division is made where two jobs tell its sides apart, or one
        if only two jobs vote.

    Returns
    -------
    groups : list of array (leaf,)
        Leaves of each class. Small branches that most jobs do not join to a class are in none.
    divisions : tuple of Division
        As they were considered.

    Raises
    ------
    InputError
        Where the tree has no more divisions than were made.
    """
    corroborating = min(2, len(tree.labels) - 1)
    first = _next_division(tree, 2 * tree.n_leaves - 2, min_size)
    waiting, done = [(-tree.height(first), first)], []
    divisions: list[Division] = []
    while waiting:
        _, node = heapq.heappop(waiting)
        found = _division(tree, node, min_size)
        if found is None:
            done.append(node)
            continue
        if n_classes is None:
            made = found.n_jobs >= corroborating
        else:
            made = len(done) + len(waiting) + 1 < n_classes
        divisions.append(Division(found.height, found.sizes, found.apart, made))
        if not made:
            done.append(node)
            continue
        for child in tree.children(node):
            below = _next_division(tree, child, min_size)
            heapq.heappush(waiting, (-tree.height(below), below))
    if n_classes is not None and len(done) < n_classes:
        raise InputError(
            f"n_classes: found {n_classes}, but the jobs tell apart {len(done)} groups of at least "
            f"{min_size} particles; ask for fewer classes or a smaller min_size"
        )
    return [tree.leaves(node) for node in done], tuple(divisions)


def _division(tree: TupleTree, node: int, min_size: int) -> Division | None:
    if node < tree.n_leaves:
        return None
    larger, smaller = tree.children(node)
    if tree.particles(smaller) < min_size:
        return None
    sizes = tree.particles(larger), tree.particles(smaller)
    return Division(tree.height(node), sizes, tree.apart(larger, smaller), made=False)


def _next_division(tree: TupleTree, node: int, min_size: int) -> int:
    """Descend along the larger children to a node with two large ones.

    Where there is none, the node itself comes back, without small branches that most jobs do not
    join to the rest.
    """
    whole = node
    while node >= tree.n_leaves:
        larger, smaller = tree.children(node)
        if tree.particles(smaller) >= min_size:
            return node
        if tree.height(node) >= _OUTSIDE:
            whole = larger
        node = larger
    return whole
