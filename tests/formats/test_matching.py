"""The same particles in several files: whatever the order, whichever copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.formats.classification import Classification
from emhet_dask.formats.matching import ParticleIndex, match_classifications
from emhet_dask.formats.star import ParticleTable


def job(names, *, name="job001"):
    table = ParticleTable(f"{name}.star", 30001, pd.DataFrame({"rlnImageName": names}), None)
    return wrapped(table, len(names), name)


def of_cryosparc(uids, *, images=None, name="J1"):
    fields = [("uid", "<u8")]
    if images is not None:
        fields += [("blob/path", "S20"), ("blob/idx", "<u4")]
    records = np.zeros(len(uids), fields)
    records["uid"] = uids
    if images is not None:
        records["blob/path"] = [path for _, path in images]
        records["blob/idx"] = [number for number, _ in images]
    return wrapped(records, len(uids), name)


def wrapped(particles, n, name):
    return Classification(
        name=name,
        path=Path(name),
        particles=particles,
        labels=np.arange(n) + 100,
        classes=(1,),
        pmax=None,
        class_maps={},
    )


def by_hand(jobs):
    """Rows of the shared (name, copy), in the order of the first, found one by one."""
    keys = [list(zip(each.identity.names, each.identity.copies, strict=True)) for each in jobs]
    shared = [key for key in keys[0] if all(key in each for each in keys[1:])]
    return np.array([[each.index(key) for key in shared] for each in keys]).reshape(
        len(jobs), len(shared)
    )


@st.composite
def expansions(draw):
    """Jobs that draw on the same names, each name with one multiplicity, in any order."""
    n_names = draw(st.integers(1, 6))
    multiplicity = draw(st.lists(st.integers(1, 3), min_size=n_names, max_size=n_names))
    jobs = []
    for _ in range(draw(st.integers(1, 4))):
        held = draw(st.sets(st.integers(0, n_names - 1)))
        names = [f"{k}@a" for k in sorted({0, *held}) for _ in range(multiplicity[k])]
        jobs.append(job(draw(st.permutations(names))))
    return jobs


@given(expansions())
def test_copies_are_matched_by_rank_in_the_order_of_the_first(jobs):
    matched = match_classifications(jobs)
    expected = by_hand(jobs)
    np.testing.assert_array_equal(matched.rows, expected)
    assert matched.n_particles == expected.shape[1]
    assert matched.n_unmatched == tuple(each.n_particles - expected.shape[1] for each in jobs)
    np.testing.assert_array_equal(matched.labels(jobs), expected + 100)


def test_copies_that_differ_in_number_are_refused_with_the_counts():
    jobs = [job(["a", "b", "a"]), job(["b", "a"], name="job002")]
    message = (
        r"job001 and job002: 1 of 2 shared names are there a different number of times, .*"
        r"\('a': 2 and 1 times\)"
    )
    with pytest.raises(InputError, match=message):
        match_classifications(jobs)
    # Not where the name is not shared by all: nothing has to be told apart.
    third = job(["b"], name="job003")
    assert match_classifications([*jobs, third]).rows.tolist() == [[1], [0], [0]]


def test_jobs_without_a_particle_in_common_are_refused():
    with pytest.raises(
        InputError, match=r"job001 and job002: have no particle in common among 2 and 1; .*'c'"
    ):
        match_classifications([job(["a", "b"]), job(["c"], name="job002")])
    with pytest.raises(InputError, match="no particle is in all of them"):
        match_classifications([job(["a", "b"]), job(["a"]), job(["b"])])


def test_uids_are_matched_exactly():
    close = [2**63, 2**63 + 1, 2**63 + 2]  # equal in double precision
    matched = match_classifications([of_cryosparc(close), of_cryosparc(close[:0:-1])])
    assert matched.rows.tolist() == [[1, 2], [1, 0]]
    assert matched.n_unmatched == (1, 0)


def test_cryosparc_and_relion_meet_by_image():
    images = [(0, ">J1/a.mrc"), (11, "J1/a.mrc"), (0, "J1/b.mrc")]
    jobs = [
        of_cryosparc([7, 8, 9], images=images),
        job(["000001@J1/b.mrc", "000012@J1/a.mrc", "1@J1/a.mrc"]),
    ]
    assert match_classifications(jobs).rows.tolist() == [[0, 1, 2], [2, 1, 0]]
    with pytest.raises(InputError, match=r"no field blob/idx, by which"):
        match_classifications([of_cryosparc([1]), job(["a"])])


def test_an_index_finds_rows_and_says_where_there_are_none():
    index = ParticleIndex(job(["a", "b", "a"]).identity)
    codes = index.codes_of(np.array(["a", "c", "a", "a"], dtype=object))
    assert codes.tolist() == [0, -1, 0, 0]
    assert index.rows_of(codes, np.array([1, 0, 0, 2])).tolist() == [2, -1, 0, -1]


@pytest.mark.shared_data
def test_two_jobs_of_the_same_particles(shared_data):
    folder = shared_data / "relion_project/Class3D"
    jobs = [Classification.open(folder / name) for name in ("job085", "job086")]
    matched = match_classifications(jobs)
    assert (matched.n_particles, matched.n_unmatched) == (4000, (0, 0))
    labels = matched.labels(jobs)
    names = [each.particles.particles["rlnImageName"] for each in jobs]
    frames = [
        pd.DataFrame({"rlnImageName": name, "label": each.labels})
        for name, each in zip(names, jobs, strict=True)
    ]
    joined = frames[0].merge(frames[1], on="rlnImageName")
    np.testing.assert_array_equal(labels, joined[["label_x", "label_y"]].to_numpy().T)
