"""How many states an ensemble shows, and whether they are separate at all.

Four steps, each a function:

1. the principal components that stand out of the noise floor are kept (`signal_components`);
2. their tree is cut finely, at the number of groups that a Gaussian mixture with one common, round
   scatter finds likeliest (Bayesian information criterion);
3. neighbouring groups without a gap between them are merged (`separation.merge_touching`);
4. if what is left is at least two groups far apart, they are states, and the tree is cut where it
   agrees with them best. If not, the volumes are a continuum, and the tree is cut in slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.spatial.distance import cdist

from emhet_dask.analysis.agreement import adjusted_rand_index
from emhet_dask.analysis.clustering import (
    DEFAULT_MAX_EXACT,
    Labels,
    Linkage,
    Tree,
    build_tree,
    finite_table,
    renumber,
)
from emhet_dask.analysis.separation import SLICES, Gap, gaps_between, merge_touching
from emhet_dask.errors import InputError

__all__ = ["StateChoice", "best_cut", "choose_states", "signal_components"]

Array = npt.NDArray[np.float64]

# The noise floor falls by a few percent from one eigenvalue to the next.
_FLOOR_STEP = 1.15
_FLOOR_LENGTH = 5
# Height of a floor over the mean of all eigenvalues behind its beginning: 1 to 4 for noise at 8 to
# 12 Å, up to 9 at 20 Å and 20 at 30 Å, in 1,000 maps with a tight mask.
_LOW_FLOOR = 10.0
_HIGHEST_FLOOR = 20.0
_TINY = float(np.finfo(float).tiny)
# Fewer volumes than this cannot show that there is nothing between their groups.
_FEWEST = 8
# A state that counts as evidence has so many volumes at least.
_FEWEST_OF_STATE = 3
_STRONG = 1.5
_SLICES = 10
_MOST_GROUPS = 1_000


@dataclass(frozen=True)
class StateChoice:
    """A number of states, and the reasons for it.

    Attributes
    ----------
    n_clusters : int
        Where the tree is cut.
    separate_states : bool
        Whether the clusters are separate states; otherwise they are slices of a continuum, or one
        state.
    reason : str
        Why, in a sentence or two.
    n_signal : int
        Principal components above the noise floor; the tree is built on these.
    tree : Tree
        Of all volumes.
    evidence : xarray.Dataset
        Over candidate numbers of clusters (``n_clusters``): ``separation`` of the least separate
        pair of neighbours, the ``critical_separation`` that pieces of a continuum hardly reach
        with so few members, ``convincing_separation`` that one gap must reach for there to be
        states, ``separate_fraction`` of the volumes in clusters apart from all
        others, and the simplified ``silhouette``. The attribute ``slices_of_continuum`` (√12) is
        what the finest slices of an even continuum have on average.
    """

    n_clusters: int
    separate_states: bool
    reason: str
    n_signal: int
    tree: Tree
    evidence: xr.Dataset

    @property
    def labels(self) -> Labels:
        """State (volume,) of every volume, from 0 by decreasing size."""
        return self.tree.cut(self.n_clusters)


def choose_states(
    scores: npt.ArrayLike,
    *,
    explained_variance: npt.ArrayLike | None = None,
    total_variance: float | None = None,
    linkage: Linkage = "ward",
    max_clusters: int | None = None,
    exclude: npt.ArrayLike | None = None,
    max_exact: int = DEFAULT_MAX_EXACT,
    seed: int = 0,
) -> StateChoice:
    """Choose the number of states from the scores on the principal components.

    Parameters
    ----------
    scores : array (volume, component)
        Not whitened.
    explained_variance : array (component,), optional
        At least of the components of `scores`, further ones help to find the noise floor; by
        default the variance of the scores.
    total_variance : float, optional
        Sum of all eigenvalues. It tells an ensemble whose components are all noise from one whose
        components are all signal.
    linkage : {"ward", "average", "complete", "single"}
        Of the tree.
    max_clusters : int, optional
        Largest number considered; by default half of the volumes (a quarter of fewer than
        100), at most 1,000.
    exclude : array (volume,), bool, optional
        Volumes that are no evidence, such as outliers. They are in the tree all the same.
    max_exact, seed
        As `build_tree`.

    Raises
    ------
    InputError
        Where the scores are not a table of finite numbers or `exclude` has another length.
    """
    scores = finite_table(scores, name="scores")
    counted = _counted(exclude, len(scores))
    variance = scores.var(axis=0) if explained_variance is None else explained_variance
    n_signal = signal_components(
        variance, n_volumes=len(scores), total_variance=total_variance, most=scores.shape[1]
    )
    points = np.ascontiguousarray(scores[:, : max(n_signal, 1)])
    tree = build_tree(points, linkage=linkage, max_exact=max_exact, seed=seed)
    if counted.all():
        witness, inner = tree, points
    else:
        inner = points[counted]
        witness = build_tree(inner, linkage=linkage, max_exact=max_exact, seed=seed)
        if not _has_signal(scores, counted, variance, total_variance):
            n_signal = 0
    limit = _limit(max_clusters, n_volumes=len(inner), n_leaves=witness.n_leaves)
    groups = _find_groups(witness, inner, limit=limit)
    verdict = _judge(inner, *groups, n_signal=n_signal)
    if verdict.separate:
        n_clusters = best_cut(tree, groups[0], counted)
    else:
        n_clusters = _slices(tree, points, n_signal=n_signal)
    evidence = _evidence(tree, points, counted, n_clusters=n_clusters, limit=limit)
    reason = verdict.words(n_clusters)
    return StateChoice(n_clusters, verdict.separate, reason, n_signal, tree, evidence)


def signal_components(
    explained_variance: npt.ArrayLike,
    *,
    n_volumes: int,
    total_variance: float | None = None,
    most: int | None = None,
) -> int:
    """Count the principal components that stand out of the noise floor.

    Noise, even low-passed, has eigenvalues that fall smoothly, by a few percent from one to the
    next: the floor begins after a step of more than 15%. There may be several floors, because
    states with weaker density are noisier once all maps are brought to one scale, so the first one
    counts that is five steps long and not much above the mean of all eigenvalues behind it.

    Parameters
    ----------
    explained_variance : array (component,)
        Eigenvalues, largest first.
    n_volumes : int
        Number of volumes that they come from.
    total_variance : float, optional
        Sum of all eigenvalues; by default that of those given. Without it, components of equal
        variance are taken for noise.
    most : int, optional
        Not more than this.

    Returns
    -------
    int
        0 where nothing stands out.
    """
    rank = max(n_volumes - 1, 1)
    eigenvalues = np.asarray(explained_variance, dtype=np.float64)
    # The last eigenvalues of a full spectrum fall steeply again.
    shown = max(30, 10 + (len(eigenvalues) if most is None else most))
    eigenvalues = eigenvalues[: min(rank, shown)]
    positive = eigenvalues > 1e-10 * max(float(eigenvalues.max(initial=0.0)), _TINY)
    eigenvalues = eigenvalues[positive]
    most = len(eigenvalues) if most is None else min(most, len(eigenvalues))
    if len(eigenvalues) < 4:
        return most
    count, total = len(eigenvalues), float(eigenvalues.sum())
    if total_variance is not None:
        count, total = rank, max(total_variance, total)
    behind = total - np.cumsum(eigenvalues) + eigenvalues
    behind /= count - np.arange(len(eigenvalues))
    height = eigenvalues / behind
    begins = np.flatnonzero(eigenvalues[:-1] > _FLOOR_STEP * eigenvalues[1:]) + 1
    if not begins.size:
        return most if height[-1] > _HIGHEST_FLOOR else 0
    ends = np.append(begins[1:], len(eigenvalues))
    long_and_low = (ends - begins > _FLOOR_LENGTH) & (height[begins] < _LOW_FLOOR)
    first = np.argmax(long_and_low) if long_and_low.any() else -1
    return min(int(begins[first]), most)


@dataclass(frozen=True)
class _Verdict:
    """Whether groups are separate states, and what the sentence about it needs."""

    separate: bool
    n_volumes: int
    n_signal: int
    typical: Gap | None
    widest: Gap | None

    def words(self, n_clusters: int) -> str:
        """Say it to a biologist."""
        if n_clusters == 1:
            slices = f"all {self.n_volumes} volumes count as one state"
        elif self.n_volumes < 10 * _SLICES:
            slices = "clusters of so few volumes are no more than a grouping"
        else:
            slices = "clusters are slices of a continuum"
        if self.n_signal == 0:
            return f"No component stands out of the noise, so {slices}."
        if self.n_volumes < _FEWEST:
            return (
                f"{self.n_volumes} volumes are too few to show that nothing lies between their "
                "groups."
            )
        if self.typical is None or self.widest is None:
            return f"There are no gaps between groups of volumes, so {slices}."
        if self.separate:
            return (
                f"Neighbours among the {n_clusters} states are typically "
                f"{self.typical.separation:.0f} times their own spread apart, where slices of a "
                f"continuum are {SLICES:.1f} and hardly ever {self.typical.critical:.1f}."
            )
        convincing = _needed(self.n_volumes) * self.widest.critical
        return (
            f"The widest gap between groups is {self.widest.separation:.1f} times their own "
            f"spread, where {convincing:.1f} would convince, so {slices}."
        )


def _needed(n_volumes: int) -> float:
    """Strength of the widest gap from which groups are called states; few volumes need more."""
    return _STRONG * (1.0 + 10.0 / n_volumes)


def _counted(exclude: npt.ArrayLike | None, n_volumes: int) -> npt.NDArray[np.bool_]:
    if exclude is None:
        return np.ones(n_volumes, dtype=bool)
    excluded = np.asarray(exclude, dtype=bool)
    if excluded.shape != (n_volumes,):
        raise InputError(f"exclude: found shape {excluded.shape}, need one value per volume")
    # If everything is an outlier, nothing is.
    return np.ones(n_volumes, dtype=bool) if excluded.all() else ~excluded


def _has_signal(
    scores: Array,
    counted: npt.NDArray[np.bool_],
    variance: npt.ArrayLike,
    total_variance: float | None,
) -> bool:
    """Whether a component stands out among the volumes that count: an outlier makes its own."""
    inner = scores[counted]
    if len(inner) < 2:
        return False
    eigenvalues = np.linalg.eigvalsh(np.atleast_2d(np.cov(inner, rowvar=False)))[::-1]
    total = None
    if total_variance is not None:
        before = float(np.sum(np.asarray(variance, dtype=np.float64)[: scores.shape[1]]))
        total = total_variance - before + float(eigenvalues.sum())
    return signal_components(eigenvalues, n_volumes=len(inner), total_variance=total) > 0


def _limit(max_clusters: int | None, *, n_volumes: int, n_leaves: int) -> int:
    """Return the largest number of groups to consider.

    Pairs of a small ensemble's volumes are apart by chance, so there the groups must be larger.
    """
    share = 2 if n_volumes >= 10 * _SLICES else 4
    most = _MOST_GROUPS if max_clusters is None else max_clusters
    return max(1, min(most, n_volumes // share, n_leaves))


def _find_groups(
    tree: Tree, points: Array, *, limit: int
) -> tuple[Labels, dict[tuple[int, int], Gap]]:
    """Cut the tree finely and merge what no gap separates."""
    fine = tree.cut(_likeliest_cut(tree, points, limit=limit))
    return merge_touching(points, fine)


def _likeliest_cut(tree: Tree, points: Array, *, limit: int) -> int:
    """Return the number of clusters with the lowest Bayesian information criterion.

    The model is a mixture of round Gaussians of one common variance (Fraley and Raftery 2002); its
    likelihood at every cut follows from the sums of squares and sizes of the merges.
    """
    n, dimension = points.shape
    merged_squares, merged_sizes = _merge_statistics(tree, points)
    n_clusters = tree.n_leaves - np.arange(tree.n_leaves)
    within, entropy = np.cumsum(merged_squares), np.cumsum(merged_sizes)
    kept = n_clusters <= limit
    n_clusters, within, entropy = n_clusters[kept], within[kept], entropy[kept]
    total = max(float(within[-1]), _TINY)
    variance = np.maximum(within / (dimension * (n - n_clusters)), 1e-12 * total)
    log_likelihood = entropy - 0.5 * n * dimension * np.log(variance) - 0.5 * within / variance
    n_parameters = (n_clusters - 1) + n_clusters * dimension + 1
    criterion = n_parameters * np.log(n) - 2.0 * log_likelihood
    return int(n_clusters[np.argmin(criterion)])


def _merge_statistics(tree: Tree, points: Array) -> tuple[Array, Array]:
    """Return what each merge adds to the squares within clusters and to the sum of n log(n / N).

    The first value is that of the leaves, before any merge.
    """
    n_volumes, n = len(points), tree.n_leaves
    size = np.zeros(2 * n - 1)
    size[:n] = np.bincount(tree.leaf, minlength=n)
    centre = np.zeros((2 * n - 1, points.shape[1]))
    for dimension, column in enumerate(points.T):
        centre[:n, dimension] = np.bincount(tree.leaf, column, minlength=n) / size[:n]
    for merge, (a, b) in enumerate(tree.children):
        size[n + merge] = size[a] + size[b]
        centre[n + merge] = (size[a] * centre[a] + size[b] * centre[b]) / size[n + merge]
    left, right = tree.children.T
    apart = np.sum((centre[left] - centre[right]) ** 2, axis=1)
    squares = size[left] * size[right] / size[n:] * apart
    log_size = size * np.log(size / n_volumes)
    own = float(np.sum((points - centre[tree.leaf]) ** 2))
    return (
        np.concatenate([[own], squares]),
        np.concatenate([[log_size[:n].sum()], log_size[n:] - log_size[left] - log_size[right]]),
    )


def _judge(
    points: Array, groups: Labels, gaps: dict[tuple[int, int], Gap], *, n_signal: int
) -> _Verdict:
    """Judge by the gaps that hold the groups apart: the edges of their minimum spanning tree.

    Groups of one or two volumes bridge others, but are no evidence themselves.
    """
    whole = gaps_between(points, groups)
    weakest = {
        pair: min(gap, gaps.get(pair, gap), key=lambda g: g.strength) for pair, gap in whole.items()
    }
    owner = np.arange(groups.max() + 1)
    counts = np.bincount(groups) >= _FEWEST_OF_STATE
    holding: list[Gap] = []
    for pair, gap in sorted(weakest.items(), key=lambda item: item[1].strength):
        i, j = (int(owner[k]) for k in pair)
        if i == j:
            continue
        if counts[i] and counts[j]:
            holding.append(gap)
        counts[i] |= counts[j]
        owner[owner == j] = i
    n = len(points)
    if not holding or n_signal == 0:
        return _Verdict(separate=False, n_volumes=n, n_signal=n_signal, typical=None, widest=None)
    typical, widest = holding[len(holding) // 2], holding[-1]
    separate = n >= _FEWEST and widest.strength > _needed(n)
    return _Verdict(separate, n, n_signal, typical, widest)


def best_cut(tree: Tree, groups: Labels, counted: npt.NDArray[np.bool_]) -> int:
    """Return the number of clusters at which a tree agrees best with groups of its volumes.

    Parameters
    ----------
    tree : Tree
    groups : array of int (counted volume,)
        At least two, from 0.
    counted : array of bool (volume,)
        Volumes of the tree that are in a group.
    """
    n_groups = int(groups.max()) + 1

    def agreement(n_clusters: int) -> tuple[float, int]:
        index = adjusted_rand_index(groups, tree.cut(n_clusters)[counted])
        return round(float(index), 6), -abs(n_clusters - n_groups)

    reach = range(max(2, n_groups // 2), min(2 * n_groups + 10, tree.n_leaves) + 1)
    step = max(1, len(reach) // 40)
    near = [k for k in range(n_groups - 5, n_groups + 6) if k in reach]
    best = max({*reach[::step], *near}, key=agreement)
    return max((k for k in range(best - step, best + step + 1) if k in reach), key=agreement)


def _slices(tree: Tree, points: Array, *, n_signal: int) -> int:
    """Return how many slices to show of volumes without separate states."""
    n = len(points)
    if n_signal == 0 or n < 4:
        return 1
    if n >= 10 * _SLICES:
        return min(_SLICES, tree.n_leaves)
    candidates = range(2, min(_SLICES, max(n // 3, 2)) + 1)
    return max(candidates, key=lambda k: _silhouette(points, tree.cut(k)))


def _silhouette(points: Array, labels: Labels) -> float:
    """Mean simplified silhouette (Hruschka et al. 2004): distances to centres, not to members."""
    size = np.bincount(labels)
    centres = np.stack([np.bincount(labels, column) for column in points.T], axis=1) / size[:, None]
    distance = cdist(points, centres)
    rows = np.arange(len(points))
    own = distance[rows, labels]
    distance[rows, labels] = np.inf
    other = distance.min(axis=1)
    width = (other - own) / np.maximum(np.maximum(other, own), _TINY)
    return float(np.mean(np.where(size[labels] > 1, width, 0.0)))


def _evidence(
    tree: Tree, points: Array, counted: npt.NDArray[np.bool_], *, n_clusters: int, limit: int
) -> xr.Dataset:
    """Measure the gaps at numbers of clusters around the choice."""
    last = max(2, min(max(2 * n_clusters, 3 * _SLICES), max(limit, n_clusters), tree.n_leaves))
    spread = np.unique(np.geomspace(2, last, 24).round().astype(int))
    near = np.arange(n_clusters - 2, n_clusters + 3)
    candidates = np.unique(np.concatenate([spread, near[(near > 1) & (near <= last)]]))
    candidates = candidates[candidates <= tree.n_leaves]
    inner = points[counted]
    rows = np.full((len(candidates), 4), np.nan)
    for row, k in enumerate(candidates):
        labels = renumber(tree.cut(int(k))[counted])
        gaps = gaps_between(inner, labels)
        if not gaps:
            continue
        weakest = min(gaps.values(), key=lambda gap: gap.strength)
        touching = {group for pair, gap in gaps.items() if gap.strength < 1 for group in pair}
        apart = 1.0 - float(np.isin(labels, list(touching)).mean())
        rows[row] = weakest.separation, weakest.critical, apart, _silhouette(inner, labels)
    names = ("separation", "critical_separation", "separate_fraction", "silhouette")
    found = xr.Dataset(
        {name: ("n_clusters", column) for name, column in zip(names, rows.T, strict=True)},
        coords={"n_clusters": candidates},
        attrs={"slices_of_continuum": SLICES},
    )
    return found.assign(convincing_separation=_needed(len(inner)) * found["critical_separation"])
