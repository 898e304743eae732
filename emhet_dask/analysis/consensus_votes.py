"""How jobs vote for consensus classes, particle by particle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Claims", "cast_votes", "claims"]

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int64]


class Claims(NamedTuple):
    """How far a job's classes belong to the consensus classes.

    Attributes
    ----------
    values : array (consensus class, class of job)
        The share of the consensus class that has this label, over the largest such share: 1 for the
        consensus class that the label speaks for most. For a class of the job that belongs to no
        consensus class: the least dissimilarity of maps over this one, or 0 without maps.
    by_label : array (class of job,)
        False for those that belong to no consensus class.
    """

    values: Array
    by_label: npt.NDArray[np.bool_]


# A job's class belongs somewhere if half of its particles are in consensus classes.
_AT_HOME = 0.5
# Particles at once; their votes take a few MB.
_STEP = 1 << 16


def claims(
    label: Codes, size: Counts, groups: Sequence[Codes], *, held: Counts, maps: Array | None
) -> Claims:
    """Say how far a job's classes belong to the consensus classes.

    Parameters
    ----------
    label : array (leaf,)
        The job's class of each tuple in the tree.
    size : array (leaf,)
        Particles.
    groups : sequence of array
        Leaves of each consensus class.
    held : array (class of job,)
        Particles in each class of the job.
    maps : array (class of job, class of job) or None
        Correlations between the maps of the job's classes.

    Returns
    -------
    Claims
    """
    n_labels = len(held)
    inside = np.stack([np.bincount(label[each], size[each], n_labels) for each in groups])
    share = inside / inside.sum(axis=1, keepdims=True)
    best = share.max(axis=0)
    values = share / np.where(best > 0, best, 1.0)
    stranger = inside.sum(axis=0) < _AT_HOME * held
    values[:, stranger] = 0.0
    if maps is not None:
        unlike = np.maximum(1.0 - share @ maps[:n_labels, :n_labels][:, stranger], 1e-6)
        values[:, stranger] = unlike.min(axis=0) / unlike
    return Claims(values, ~stranger)


def cast_votes(
    labels: Codes,
    claimed: Sequence[Claims],
    *,
    weight: Array,
    certainty: Sequence[Array | None],
) -> tuple[Codes, Array, Array]:
    """Count the votes for each particle.

    Parameters
    ----------
    labels : array (job, particle)
        Class of each particle in each job, from 0.
    claimed : sequence of Claims
        Of each job.
    weight : array (job,)
        Of the votes.
    certainty : sequence of (array (particle,) or None)
        Factors of a job's vote, 0 to 1.

    Returns
    -------
    found : array (particle,)
        Consensus class with most votes, from 0; of equal ones the first.
    confidence : array (particle,)
        Share of the votes that are for it by label: the similarity of maps decides where a particle
        goes, but makes nobody more confident.
    lead : array (particle,)
        Share by which it is ahead of the next class; its own share if there is no other.
    """
    n_particles = labels.shape[1]
    found = np.zeros(n_particles, dtype=np.intp)
    confidence, lead = np.zeros(n_particles), np.zeros(n_particles)
    for start in range(0, n_particles, _STEP):
        part = slice(start, start + _STEP)
        own = labels[:, part]
        strength = [
            weight[job] * (np.ones(own.shape[1]) if sure is None else sure[part])
            for job, sure in enumerate(certainty)
        ]
        all_votes = np.sum(strength, axis=0)
        all_votes[all_votes == 0] = 1.0
        votes = sum(
            each * claim.values[:, label]
            for each, claim, label in zip(strength, claimed, own, strict=True)
        )
        best = np.argmax(votes, axis=0)
        by_label = sum(
            each * claim.values[best, label] * claim.by_label[label]
            for each, claim, label in zip(strength, claimed, own, strict=True)
        )
        ranked = np.sort(votes, axis=0)
        found[part] = best
        confidence[part] = np.minimum(by_label / all_votes, 1.0)
        lead[part] = (ranked[-1] - (ranked[-2] if len(ranked) > 1 else 0.0)) / all_votes
    return found, confidence, lead
