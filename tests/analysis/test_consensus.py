"""Consensus classes of planted states, through the errors that classifications make."""

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from emhet_dask.analysis.consensus import consensus, default_min_size
from emhet_dask.analysis.consensus_tree import build_tuple_tree, divide
from emhet_dask.errors import InputError

N_PARTICLES = 20_000
SHARES = (0.3, 0.25, 0.2, 0.15, 0.1)


class Jobs:
    """Labelings of five planted states, with errors."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.truth = self.rng.choice(len(SHARES), N_PARTICLES, p=SHARES)

    def noisy(self, labels, share):
        wrong = self.rng.random(N_PARTICLES) < share
        return np.where(wrong, self.rng.integers(0, labels.max() + 1, N_PARTICLES), labels)

    def merged(self, labels, one, other):
        return np.where(labels == other, one, labels)

    def split(self, labels, state, share=0.5):
        chosen = (labels == state) & (self.rng.random(N_PARTICLES) < share)
        return np.where(chosen, labels.max() + 1, labels)

    def relabelled(self, labels):
        return self.rng.permutation(labels.max() + 1)[labels] + 1


def relabelled(jobs):
    return [jobs.noisy(jobs.truth, 0.05) for _ in range(5)]


def noise_10(jobs):
    return [jobs.noisy(jobs.truth, 0.1) for _ in range(5)]


def noise_20(jobs):
    return [jobs.noisy(jobs.truth, 0.2) for _ in range(5)]


def merges(jobs):
    truth = jobs.truth
    pairs = [[(0, 1)], [(2, 3)], [(3, 4)], [(0, 1), (2, 4)], []]
    found = []
    for each in pairs:
        labels = truth
        for one, other in each:
            labels = jobs.merged(labels, one, other)
        found.append(jobs.noisy(labels, 0.1))
    return found


def splits(jobs):
    truth = jobs.truth
    return [
        jobs.noisy(jobs.split(truth, 0), 0.1),
        jobs.noisy(jobs.split(truth, 1, 0.3), 0.1),
        jobs.noisy(jobs.split(jobs.split(truth, 2), 0), 0.1),
        jobs.noisy(jobs.merged(truth, 1, 2), 0.1),
        jobs.noisy(jobs.split(truth, 4), 0.1),
    ]


def mixed(jobs):
    truth = jobs.truth
    return [
        jobs.noisy(jobs.merged(truth, 0, 1), 0.05),
        jobs.noisy(jobs.split(jobs.merged(truth, 2, 3), 0), 0.1),
        jobs.noisy(jobs.merged(truth, 1, 4), 0.2),
        jobs.noisy(jobs.split(truth, 0, 0.3), 0.15),
        jobs.noisy(truth, 0.1),
    ]


def useless(jobs):
    return [*mixed(jobs), jobs.rng.integers(0, 8, N_PARTICLES)]


PLANTED = {
    relabelled: 0.99,
    noise_10: 0.99,
    noise_20: 0.95,
    merges: 0.97,
    splits: 0.98,
    mixed: 0.97,
    useless: 0.97,
}


@pytest.mark.parametrize(
    ("make", "least"), PLANTED.items(), ids=[make.__name__ for make in PLANTED]
)
@pytest.mark.parametrize("seed", [11, 12])
def test_planted_states_are_found(make, least, seed):
    jobs = Jobs(seed)
    labels = np.stack(
        [jobs.relabelled(np.unique(each, return_inverse=True)[1]) for each in make(jobs)]
    )
    found = consensus(labels)
    best = max(adjusted_rand_score(jobs.truth, each) for each in labels)
    ari = adjusted_rand_score(jobs.truth, found.labels)
    assert found.n_classes == len(SHARES)
    assert ari > least
    assert ari > best
    assert adjusted_rand_score(jobs.truth[found.core], found.labels[found.core]) > 0.995
    # Those that are sure are right more often.
    right = np.zeros(N_PARTICLES, dtype=bool)
    for number in range(1, found.n_classes + 1):
        inside = found.labels == number
        right[inside] = jobs.truth[inside] == np.bincount(jobs.truth[inside]).argmax()
    resolved = found.labels > 0
    sure = found.confidence >= 0.75
    assert right[resolved & sure].mean() >= right[resolved & ~sure].mean()
    assert (np.diff(np.bincount(found.labels)[1:]) <= 0).all()


def test_a_useless_job_has_no_vote():
    jobs = Jobs(3)
    labels = np.stack(
        [*(jobs.noisy(jobs.truth, 0.1) for _ in range(4)), jobs.rng.integers(0, 5, N_PARTICLES)]
    )
    found = consensus(labels)
    assert found.job_weight[4] == 0
    np.testing.assert_array_equal(found.labels, consensus(labels[:4]).labels)


def test_numbering_of_the_jobs_does_not_matter():
    jobs = Jobs(4)
    labels = np.stack(merges(jobs))
    other = np.stack([jobs.relabelled(each) for each in labels])
    np.testing.assert_array_equal(consensus(labels).labels, consensus(other).labels)


# Two jobs as they fail in practice: the first joins states 0 and 1 and has a small mixed class (1),
# the second joins 2 and 3.
TWO = np.repeat([[4, 4, 3, 2, 1], [3, 2, 1, 1, 1]], [1064, 978, 975, 899, 84], axis=1)
SMALL = TWO[0] == 1


def test_two_jobs_that_fail_differently():
    found = consensus(TWO)
    assert found.n_classes == 4
    assert found.min_size == default_min_size(TWO) == 100
    # Nothing says where the small class belongs: one job has no such class, the other joins both.
    np.testing.assert_array_equal(found.labels == 0, SMALL)
    np.testing.assert_allclose(found.confidence, np.where(SMALL, 0.5, 1.0))
    np.testing.assert_array_equal(found.core, ~SMALL)
    assert [division.n_jobs for division in found.divisions] == [2, 1, 1]
    assert consensus(TWO, min_size=50).n_classes == 5


def test_maps_say_where_a_small_class_belongs():
    maps = np.full((4, 4), 0.6)
    np.fill_diagonal(maps, 1.0)
    maps[0, 1] = maps[1, 0] = 0.91
    maps[0, 2] = maps[2, 0] = 0.83
    found = consensus(TWO, map_similarity=[maps, None])
    assert not (found.labels == 0).any()
    like = found.labels[TWO[0] == 2]
    np.testing.assert_array_equal(found.labels[SMALL], like[0])
    assert not found.core[SMALL].any()
    # Equally like both, it stays out.
    maps[0, 1] = maps[1, 0] = 0.84
    assert (consensus(TWO, map_similarity=[maps, None]).labels[SMALL] == 0).all()


def test_maps_decide_which_of_equal_merges_comes_first():
    maps = np.full((4, 4), 0.6)
    np.fill_diagonal(maps, 1.0)
    maps[1, 2] = maps[2, 1] = 0.9
    found = consensus(TWO, n_classes=3, map_similarity=[maps, np.eye(3)])
    assert len(set(found.labels[(TWO[0] == 2) | (TWO[0] == 3)])) == 1
    assert len(set(found.labels[TWO[0] == 4])) == 2


def test_pmax_decides_between_two_jobs_that_differ():
    labels = np.array([[0] * 500 + [1] * 500 + [0] * 20, [0] * 500 + [1] * 500 + [1] * 20])
    pmax = np.full((2, 1020), 0.9)
    assert (consensus(labels, pmax=list(pmax)).labels[1000:] == 0).all()
    pmax[1, 1000:1010] = 0.3
    pmax[0, 1010:] = 0.3
    found = consensus(labels, pmax=list(pmax)).labels
    np.testing.assert_array_equal(found[1000:1010], found[0])
    np.testing.assert_array_equal(found[1010:], found[500])
    assert found[0] != found[500]


def test_three_jobs_do_not_follow_one():
    rng = np.random.default_rng(5)
    truth = np.repeat([0, 1], 2000)
    halved = np.where(rng.random(4000) < 0.5, truth + 2, truth)
    assert consensus([truth, truth, halved]).n_classes == 2
    assert consensus([truth, halved]).n_classes == 4


def test_more_classes_than_the_jobs_tell_apart():
    with pytest.raises(InputError, match="tell apart 4 groups of at least 100"):
        consensus(TWO, n_classes=5)
    assert consensus(TWO, n_classes=1).n_classes == 1


def test_nothing_to_divide():
    found = consensus(np.ones((2, 50), dtype=int))
    assert found.n_classes == 1
    assert (found.labels == 1).all()
    assert found.core.all()
    assert consensus(np.array([[1, 2, 1], [1, 2, 2]])).n_classes == 1


def test_jobs_that_see_different_things():
    """Two unrelated divisions are both kept, and the numbers of the table say that they are."""
    labels = np.repeat([[0, 0, 1, 1], [0, 1, 0, 1]], 250, axis=1)
    found = consensus(labels)
    assert found.n_classes == 4
    np.testing.assert_array_equal(found.job_weight, [0.5, 0.5])


def test_bad_input():
    with pytest.raises(InputError, match="need two or more"):
        consensus(TWO[:1])
    with pytest.raises(InputError, match="pmax: found shape"):
        consensus(TWO, pmax=[np.ones(3), None])
    with pytest.raises(InputError, match="map_similarity: found shape"):
        consensus(TWO, map_similarity=[np.eye(3), None])


def test_tree_is_that_of_all_particles():
    """Average linkage of weighted tuples equals that of their particles."""
    rng = np.random.default_rng(6)
    tuples = np.unique(rng.integers(0, 4, (14, 5)), axis=0)
    size = rng.integers(1, 9, len(tuples))
    weight = np.array([0.31, 0.27, 0.19, 0.13, 0.1])
    tree = build_tuple_tree(
        tuples.T, size, weight=weight, similarity=[None] * 5, certainty=[None] * 5
    )
    particles = np.repeat(tuples, size, axis=0)
    distance = ((particles[:, None] != particles[None]) * weight).sum(axis=2)
    full = hierarchy.linkage(squareform(distance), method="average")
    heights = full[full[:, 2] > 1e-12, 2]
    np.testing.assert_allclose(tree.merges[:, 2], heights, atol=1e-9)


def test_ties_leave_a_tree_in_order():
    """With equal distances, no union may come before its parts."""
    rng = np.random.default_rng(7)
    labels = np.unique(rng.integers(0, 4, (600, 5)), axis=0)
    size = rng.integers(1, 500, len(labels))
    tree = build_tuple_tree(
        labels.T, size, weight=np.full(5, 0.2), similarity=[None] * 5, certainty=[None] * 5
    )
    assert (np.diff(tree.merges[:, 2]) >= 0).all()
    children = tree.merges[:, :2].astype(int)
    assert (children < tree.n_leaves + np.arange(len(children))[:, None]).all()
    assert len(np.unique(children)) == children.size
    for node in (2 * tree.n_leaves - 2, 2 * tree.n_leaves - 10):
        assert size[tree.leaves(node)].sum() == tree.particles(node)


def test_groups_do_not_share_leaves():
    jobs = Jobs(8)
    labels = np.stack(noise_20(jobs))
    tuples, size = np.unique(labels, axis=1, return_counts=True)
    order = np.argsort(-size)[:500]
    tree = build_tuple_tree(
        tuples[:, order],
        size[order],
        weight=np.full(5, 0.2),
        similarity=[None] * 5,
        certainty=[None] * 5,
    )
    groups, divisions = divide(tree, min_size=400)
    together = np.concatenate(groups)
    assert len(np.unique(together)) == len(together)
    assert sum(division.made for division in divisions) == len(groups) - 1 == 4
