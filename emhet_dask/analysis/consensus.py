"""Classes that several classifications of the same particles agree on.

Particles that have the same class in every job are one *tuple*: a million particles have a few
thousand tuples, and only these are clustered. The co-association of two tuples is the share of the
jobs that put them into one class (Fred and Jain, IEEE PAMI 27, 835, 2005), where jobs count by how
much they tell of one another. The tree of the tuples is divided from its top; then each particle
goes to the class that most of the jobs vote for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emhet_dask.analysis.agreement import adjusted_mutual_information_of
from emhet_dask.analysis.consensus_tree import Division, build_tuple_tree, divide
from emhet_dask.analysis.consensus_votes import cast_votes, claims
from emhet_dask.analysis.crosstabs import PairTable, class_codes, pair_tables
from emhet_dask.errors import InputError

__all__ = ["CORE_CONFIDENCE", "Consensus", "consensus", "default_min_size", "job_weights"]

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]

# The stable core: nine tenths of the votes.
CORE_CONFIDENCE = 0.9
# A class that is ahead of the next by a tenth of the votes has the particle.
_CLEAR_LEAD = 0.1
# A job that shares less than this with each of the others has no vote.
_LEAST_INFORMATION = 0.05
_SHARE_OF_MEAN_CLASS = 0.1
_FEWEST = 10


@dataclass(frozen=True)
class Consensus:
    """Consensus classes of particles.

    Attributes
    ----------
    labels : array (particle,)
        From 1, by decreasing number of particles; 0 is unresolved.
    confidence : array (particle,)
        Share of the votes, from 0 to 1, for that class, or, unresolved, for the one that is ahead:
        1 where every job's label speaks for it as much as for any other.
    n_classes : int
    job_weight : array (job,)
        Share of each job in the votes; 0 for one that tells nothing of the others.
    min_size : int
        Fewest particles of a group that is a class.
    tuple_labels : array (tuple, job)
        Distinct combinations of class numbers, the most frequent first.
    tuple_size : array (tuple,)
        Particles of each.
    tuple_of_particle : array (particle,)
    divisions : tuple of Division
        Those considered, from the top of the tree.
    """

    labels: npt.NDArray[np.int64]
    confidence: Array
    n_classes: int
    job_weight: Array
    min_size: int
    tuple_labels: npt.NDArray[np.int64]
    tuple_size: npt.NDArray[np.int64]
    tuple_of_particle: Codes
    divisions: tuple[Division, ...]

    @property
    def core(self) -> npt.NDArray[np.bool_]:
        """Particles (particle,) of the stable core: nearly all votes are for their class."""
        return (self.labels > 0) & (self.confidence >= CORE_CONFIDENCE)


def consensus(
    labels: npt.ArrayLike,
    *,
    n_classes: int | None = None,
    min_size: int | None = None,
    classes: Sequence[Sequence[int]] | None = None,
    pmax: Sequence[npt.ArrayLike | None] | None = None,
    map_similarity: Sequence[npt.ArrayLike | None] | None = None,
) -> Consensus:
    """Find the classes that several jobs agree on, and who belongs to them.

    1. Jobs weigh as their mean adjusted mutual information with the others; of three or more, one
       that shares nothing with any other is left out.
    2. The heaviest 2,000 tuples are clustered by average linkage, weighted by particles, on 1 less
       their co-association. Equal distances are ranked by the similarity of the class maps and by
       Pmax. Of two jobs, tuples with less than half of the particles that chance would put there
       are no candidates for a class.
    3. From the top, a branch is divided where both sides have `min_size` particles and at least
       two jobs tell the sides apart. Of two jobs one is enough: the usual failure of a
       classification is to put two states into one class, and no third job can confirm. With
       `n_classes`, the highest divisions are made until there are so many.
    4. A job votes for a class as far as its class of the particle is that of the consensus class:
       the share of the consensus class that has this label, over the largest such share. So a job
       that merges two states votes for both, and one that splits a state for that state in each
       part. A job's class that belongs to no consensus class votes by the similarity of the maps,
       or not at all; neither adds to the confidence. Votes weigh as the job, and as the particle's
       Pmax in it, over its median there, at most 1.
    5. A particle is unresolved unless its class is ahead of the next by a tenth of the votes.

    Parameters
    ----------
    labels : array (job, particle)
        Class numbers, at least two jobs.
    n_classes : int, optional
        Number of classes; automatic without.
    min_size : int, optional
        Fewest particles of a class; default: `default_min_size`.
    classes : sequence of sequence of int, optional
        All classes of each job, ascending; by default those that occur.
    pmax : sequence of (array (particle,) or None), optional
        Highest posterior probability of each particle in each job.
    map_similarity : sequence of (array (class, class) or None), optional
        Correlations between the maps of the classes of each job.

    Returns
    -------
    Consensus

    Raises
    ------
    InputError
        When there are fewer than two jobs, arrays do not fit one another, or the jobs do not tell
        apart as many classes as are asked for.
    """
    codes, known = class_codes(labels, classes)
    if len(codes) < 2:
        raise InputError(f"consensus: found {len(codes)} job, need two or more")
    weight = job_weights(pair_tables(codes, classes=[range(len(each)) for each in known]))
    size = default_min_size(codes) if min_size is None else min_size
    voting = np.flatnonzero(weight)
    ballots = codes[voting]
    of_particle, first, count = _distinct(ballots)
    certainty = _certainty(pmax, voting, codes.shape[1])
    similarity = _similarities(map_similarity, known, voting)
    tree = build_tuple_tree(
        ballots[:, first],
        count,
        weight=weight[voting],
        similarity=similarity,
        certainty=[
            None if each is None else np.bincount(of_particle, each) / count for each in certainty
        ],
    )
    groups, divisions = divide(tree, min_size=size, n_classes=n_classes)
    found, confidence, lead = cast_votes(
        ballots,
        [
            claims(
                tree.labels[row],
                tree.size,
                groups,
                held=np.bincount(ballots[row], minlength=len(known[voting[row]])),
                maps=maps,
            )
            for row, maps in enumerate(similarity)
        ],
        weight=weight[voting],
        certainty=certainty,
    )
    resolved = np.where(lead >= _CLEAR_LEAD, found, -1)
    everything, first_of_all, sizes = _distinct(codes)
    return Consensus(
        labels=_by_size(resolved, len(groups)),
        confidence=confidence,
        n_classes=len(groups),
        job_weight=weight,
        min_size=size,
        tuple_labels=np.stack(
            [names[row[first_of_all]] for names, row in zip(known, codes, strict=True)], axis=1
        ),
        tuple_size=sizes,
        tuple_of_particle=everything,
        divisions=divisions,
    )


def default_min_size(labels: npt.ArrayLike) -> int:
    """Return a tenth of what a class of the finest job would hold, were all of equal size.

    Parameters
    ----------
    labels : array (job, particle)
    """
    table = np.asarray(labels)
    finest = max(len(np.unique(row)) for row in table)
    return max(_FEWEST, round(_SHARE_OF_MEAN_CLASS * table.shape[1] / finest))


def job_weights(tables: Sequence[PairTable]) -> Array:
    """Weigh jobs by what they tell of one another.

    Parameters
    ----------
    tables : sequence of PairTable
        Of all pairs of jobs.

    Returns
    -------
    array (job,)
        Mean adjusted mutual information with the others, over the sum. 0 for a job that shares
        nothing with any other, unless that leaves fewer than two; two jobs weigh the same.
    """
    n_jobs = max(table.second for table in tables) + 1
    shared = np.zeros((n_jobs, n_jobs))
    for table in tables:
        value = max(adjusted_mutual_information_of(table.counts), 0.0)
        shared[table.first, table.second] = shared[table.second, table.first] = value
    weight = np.where(shared.max(axis=1) >= _LEAST_INFORMATION, shared.sum(axis=1), 0.0)
    if np.count_nonzero(weight) < 2:
        weight = np.ones(n_jobs)
    return np.asarray(weight / weight.sum())


def _distinct(codes: Codes) -> tuple[Codes, Codes, npt.NDArray[np.int64]]:
    """Return the tuple of each particle, a particle of each tuple, and the sizes, largest first."""
    key = np.zeros(codes.shape[1], dtype=np.int64)
    largest = 1
    for row in codes:
        base = int(row.max()) + 1
        if largest * base >= 2**62:
            key = np.unique(key, return_inverse=True)[1].astype(np.int64)
            largest = int(key.max()) + 1
        key = key * base + row
        largest *= base
    _, first, inverse, count = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -count))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse], first[order], count[order].astype(np.int64)


def _certainty(
    pmax: Sequence[npt.ArrayLike | None] | None, voting: Codes, n_particles: int
) -> list[Array | None]:
    """Return, for each job that votes, Pmax of each particle over its median, at most 1.

    Pmax is over orientations as well as classes, so that its level differs between jobs.
    """
    found: list[Array | None] = []
    for job in voting:
        given = None if pmax is None else pmax[job]
        if given is None:
            found.append(None)
            continue
        values = np.asarray(given, dtype=np.float64)
        if values.shape != (n_particles,):
            raise InputError(
                f"pmax: found shape {values.shape} for job {job}, need ({n_particles},)"
            )
        median = float(np.median(values))
        found.append(np.clip(values / median, 0.0, 1.0) if median > 0 else None)
    return found


def _similarities(
    given: Sequence[npt.ArrayLike | None] | None,
    known: Sequence[npt.NDArray[np.int64]],
    voting: Codes,
) -> list[Array | None]:
    found: list[Array | None] = []
    for job in voting:
        each = None if given is None else given[job]
        if each is not None:
            values = np.asarray(each, dtype=np.float64)
            need = (len(known[job]), len(known[job]))
            if values.shape != need:
                raise InputError(
                    f"map_similarity: found shape {values.shape} for job {job}, need {need}"
                )
            # A map that is not there, or empty, is like no other.
            found.append(np.clip(np.nan_to_num(values, nan=-1.0), -1.0, 1.0))
        else:
            found.append(None)
    return found


def _by_size(found: Codes, n_classes: int) -> npt.NDArray[np.int64]:
    """Return numbers from 1 by decreasing size of the class, 0 for -1."""
    size = np.bincount(found[found >= 0], minlength=n_classes)
    rank = np.empty(n_classes + 1, dtype=np.int64)
    rank[np.argsort(-size, kind="stable")] = np.arange(1, n_classes + 1)
    rank[n_classes] = 0
    return rank[found]
