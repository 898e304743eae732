"""Classifications: classes as each program writes them, subsets that RELION opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.formats import cryosparc
from emhet_dask.formats.classification import Classification, read_particles
from emhet_dask.formats.star import read_particles as read_star_particles
from emhet_dask.formats.star import write_star

in_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


def table(labels, **more):
    return pd.DataFrame(
        {
            "rlnImageName": [f"{row + 1:06d}@a.mrcs" for row in range(len(labels))],
            "rlnClassNumber": labels,
            **more,
        }
    )


def job(folder: Path, prefix: str = "run_it025", *, labels=(1, 3, 1), k: int = 4, **more) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_star(
        folder / f"{prefix}_data.star",
        {"optics": pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnVoltage": [300.0, 200.0]}),
         "particles": table(labels, rlnOpticsGroup=1, **more)},
        version=30001,
    )  # fmt: skip
    write_star(folder / f"{prefix}_model.star", {"model_general": {"rlnNrClasses": k}})
    for number in range(1, k + 1):
        (folder / f"{prefix}_class{number:03d}.mrc").touch()
    (folder / f"{prefix}_half1_class001_unfil.mrc").touch()
    return folder


def records(posterior=None, *, extra=(), n=3):
    n = n if posterior is None else len(posterior)
    fields = [("uid", "<u8"), ("blob/path", "S20"), ("blob/idx", "<u4"), *extra]
    made = np.zeros(n, fields)
    made["uid"] = np.arange(n, dtype=np.uint64) + 2**63
    made["blob/path"] = b"J1/a.mrc"
    made["blob/idx"] = np.arange(n)
    return made


def multi(posterior, **classes):
    """Records with the posteriors of all classes in one field."""
    posterior = np.asarray(posterior, dtype="f4")
    k = posterior.shape[1]
    extra = [("alignments3D_multi/class_posterior", "<f4", (k,))]
    if classes:
        extra.append(("alignments3D_multi/class", "<u4", (k,)))
    made = records(posterior, extra=extra)
    made["alignments3D_multi/class_posterior"] = posterior
    for value in classes.values():
        made["alignments3D_multi/class"] = value
    return made


def saved(path: Path, made: np.ndarray) -> Path:
    cryosparc.write_particles(path, made)
    return path


def test_a_job_is_its_last_iteration_with_its_empty_classes(tmp_path):
    folder = job(tmp_path / "job085", rlnMaxValueProbDistribution=[0.5, 1.0, 0.25])
    job(folder, "run_it003", labels=(2, 2, 2))
    opened = Classification.open(folder)
    assert (opened.name, opened.path) == ("job085", folder / "run_it025_data.star")
    assert opened.labels.dtype == np.int64
    assert list(opened.labels) == [1, 3, 1]
    assert opened.classes == (1, 2, 3, 4)
    assert list(opened.pmax) == [0.5, 1.0, 0.25]
    assert list(opened.class_maps) == [1, 2, 3, 4]
    assert opened.class_maps[3] == folder / "run_it025_class003.mrc"
    assert (opened.n_particles, opened.suffix) == (3, ".star")
    assert Classification.open(f"{folder}/").name == "job085"


def test_a_continued_job_is_read_where_it_ended(tmp_path):
    folder = job(tmp_path / "job085", "run_it012", labels=(2, 2, 2))
    job(folder, "run_ct12_it025", k=5)
    opened = Classification.open(folder)
    assert opened.path.name == "run_ct12_it025_data.star"
    assert opened.classes == (1, 2, 3, 4, 5)
    assert opened.class_maps[5].name == "run_ct12_it025_class005.mrc"


def test_a_file_alone_has_the_classes_it_names(tmp_path):
    write_star(tmp_path / "some.star", {"images": table([7, 2, 7])})
    opened = Classification.open(tmp_path / "some.star")
    assert (opened.name, opened.classes, opened.pmax) == ("some", (2, 7), None)
    assert opened.class_maps == {}
    assert opened.particles.kind == "3.0"
    # Beside its model it knows of the empty ones.
    assert Classification.open(job(tmp_path) / "run_it025_data.star").classes == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("labels", "k", "message"),
    [
        ((0, 1, 1), 4, "_rlnClassNumber is 0 for 1 particles; RELION numbers classes from 1"),
        ((1.5, 1, -2), 4, "_rlnClassNumber is 1.5 for 2 particles"),
        ((1, "x", 1), 4, "_rlnClassNumber is 'x' in row 1 of the particles, expected a number"),
        ((1, 6, 1), 4, "_rlnClassNumber goes up to 6, but the model beside it has 4 classes"),
        ((1, 1, 1), 0, "_rlnNrClasses is 0, expected a number of at least 1"),
    ],
)
def test_classes_that_relion_would_not_write_are_refused(tmp_path, labels, k, message):
    with pytest.raises(InputError, match=message) as caught:
        Classification.open(job(tmp_path / "job085", labels=list(labels), k=k))
    assert "\n" not in str(caught.value)


def test_particles_without_classes_are_read_but_are_no_classification(tmp_path):
    path = tmp_path / "particles.star"
    write_star(path, {"particles": table([1, 2]).drop(columns="rlnClassNumber")})
    assert len(read_particles(path).particles) == 2
    with pytest.raises(InputError, match=r"no column _rlnClassNumber; expected the particles of"):
        Classification.open(path)


def test_folders_without_particles_are_refused(tmp_path):
    with pytest.raises(InputError, match="not a RELION classification job"):
        Classification.open(tmp_path)
    job(tmp_path, "run_it000")
    (tmp_path / "run_it025_model.star").touch()
    with pytest.raises(InputError, match="no particles of a finished iteration"):
        Classification.open(tmp_path)
    with pytest.raises(InputError, match=r"job099: no such file"):
        Classification.open(tmp_path / "job099")


def test_damaged_stars_are_refused_as_everywhere(tmp_path):
    folder = job(tmp_path / "job085")
    path = folder / "run_it025_data.star"
    whole = path.read_bytes()
    for damaged, message in (
        (whole.replace(b"\n", b"\r\n"), "CRLF"),
        (whole.rstrip()[:-4], "is the file cut short"),
        (whole.replace(b"\t3\t1\n", b"\t3\t9\n"), "optics groups that data_optics does not define"),
    ):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            Classification.open(folder)


def test_cryosparc_classes_are_the_likeliest(tmp_path):
    posterior = [[0.2, 0.7, 0.1], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]
    opened = Classification.open(saved(tmp_path / "J24.cs", multi(posterior)))
    assert (opened.name, opened.classes, opened.suffix) == ("J24", (0, 1, 2), ".cs")
    assert list(opened.labels) == [1, 0, 2]  # of two that are equal, the first
    np.testing.assert_allclose(opened.pmax, [0.7, 0.5, 0.75], rtol=1e-6)
    assert opened.identity.names.dtype == np.uint64
    assert int(opened.identity.names[2]) == 2**63 + 2


def test_cryosparc_numbers_its_classes_itself(tmp_path):
    numbers = [[5, 3], [3, 5]]
    opened = Classification.open(
        saved(tmp_path / "J24.cs", multi([[0.9, 0.1], [0.8, 0.2]], classes=numbers))
    )
    assert list(opened.labels) == [5, 3]
    assert opened.classes == (3, 5)


@pytest.mark.parametrize("stem", ["alignments_class_{}", "alignments_class3D_{}"])
def test_cryosparc_posteriors_of_one_field_a_class(tmp_path, stem):
    names = [f"{stem.format(number)}/class_posterior" for number in (0, 10, 2)]
    made = records(n=2, extra=[(name, "<f4") for name in names])
    made[names[0]], made[names[1]], made[names[2]] = [0.1, 0.3], [0.6, 0.3], [0.3, 0.4]
    opened = Classification.open(saved(tmp_path / "J24.cs", made))
    assert opened.classes == (0, 2, 10)
    assert list(opened.labels) == [10, 2]


def test_posteriors_may_be_in_a_passthrough_file(tmp_path):
    whole = multi([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]])
    particles = saved(tmp_path / "J24.cs", whole[["uid", "blob/path"]].copy())
    more = saved(
        tmp_path / "J24_passthrough.cs",
        whole[["uid", "alignments3D_multi/class_posterior"]][::-1].copy(),
    )
    with pytest.raises(InputError, match=r"no class posteriors; expected alignments3D_multi"):
        Classification.open(particles)
    opened = Classification.open(particles, passthrough=[more])
    assert list(opened.labels) == [1, 0, 1]
    opened.write(tmp_path / "subset.cs", np.array([2, 0]))
    assert list(cryosparc.read_particles(tmp_path / "subset.cs")["uid"]) == [2**63 + 2, 2**63]
    star = job(tmp_path / "job085") / "run_it025_data.star"
    with pytest.raises(InputError, match="passthrough files belong to"):
        Classification.open(star, passthrough=[more])


@pytest.mark.parametrize("row", [[0.0, 0.0], [np.nan, 1.0], [-0.5, 1.0]])
def test_posteriors_that_choose_no_class_are_refused(tmp_path, row):
    with pytest.raises(InputError, match="1 of 2 particles have class posteriors that are all"):
        Classification.open(saved(tmp_path / "J24.cs", multi([[0.5, 0.5], row])))


@in_folder
@given(st.data())
def test_a_subset_is_what_pandas_selects(tmp_path, data):
    n = data.draw(st.integers(1, 12))
    groups = data.draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    labels = data.draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    values = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n))
    optics = pd.DataFrame({"rlnOpticsGroup": [1, 2, 3], "rlnVoltage": [300.0, 200.0, 120.0]})
    frame = table(labels, rlnOpticsGroup=groups, rlnOriginXAngst=values)
    write_star(tmp_path / "a.star", {"optics": optics, "particles": frame}, version=30001)
    opened = Classification.open(tmp_path / "a.star")
    rows = np.flatnonzero(
        np.isin(opened.labels, data.draw(st.lists(st.integers(1, 4), min_size=1)))
    )
    opened.write(tmp_path / "b.star", rows)
    assert b"\r" not in (tmp_path / "b.star").read_bytes()
    again = read_star_particles(tmp_path / "b.star")
    pd.testing.assert_frame_equal(
        again.particles,
        opened.particles.particles.iloc[rows].reset_index(drop=True),
        check_dtype=len(rows) > 0,
        check_index_type=False,
    )
    assert list(again.particles.columns) == list(frame.columns)
    used = set(frame["rlnOpticsGroup"].iloc[rows])
    if used:
        assert set(again.optics["rlnOpticsGroup"]) == used


@pytest.mark.shared_data
def test_relion_s_own_jobs(shared_data):
    opened = [
        Classification.open(shared_data / "relion_project/Class3D" / name)
        for name in ("job085", "job086")
    ]
    assert [each.classes for each in opened] == [(1, 2, 3, 4), (1, 2, 3)]
    assert [each.n_particles for each in opened] == [4000, 4000]
    assert [len(each.class_maps) for each in opened] == [4, 3]
    # What the job's model says of its classes.
    shares = np.bincount(opened[0].labels, minlength=5)[1:] / 4000
    np.testing.assert_allclose(shares, [0.020973, 0.224776, 0.243750, 0.510500], atol=1e-3)
