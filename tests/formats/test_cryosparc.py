"""cryoSPARC records: joined and chosen by uid."""

from __future__ import annotations

import numpy as np
import pytest

from emhet_dask.errors import InputError
from emhet_dask.formats.cryosparc import read_particles, write_particles

DTYPE = [
    ("uid", "<u8"),
    ("blob/path", "S20"),
    ("blob/idx", "<u4"),
    ("alignments3D/pose", "<f4", (3,)),
]


def records(uids, dtype=DTYPE):
    made = np.zeros(len(uids), dtype)
    made["uid"] = uids
    for name in made.dtype.names[1:]:
        made[name] = (
            np.random.default_rng(0)
            .integers(0, 100, made[name].shape)
            .astype(made.dtype[name].base)
        )
    return made


def saved(path, thing):
    with path.open("wb") as file:
        np.save(file, thing, allow_pickle=True)
    return path


def test_a_subset_is_written_in_the_order_asked_for(tmp_path):
    particles = records([5, 2**63 + 1, 3])
    path = tmp_path / "particles.cs"
    write_particles(path, particles)
    np.testing.assert_array_equal(read_particles(path), particles)
    write_particles(path, particles, rows=np.array([2, 0]))
    assert list(read_particles(path)["uid"]) == [3, 5]
    assert read_particles(path).dtype == particles.dtype
    with pytest.raises(InputError, match="has 3 particles to choose from: index 7"):
        write_particles(path, particles, rows=np.array([7]))


def test_passthrough_files_are_joined_on_uid(tmp_path):
    particles = saved(tmp_path / "particles.cs", records([5, 9, 3]))
    more = records([3, 4, 5, 9], [("uid", "<u8"), ("blob/idx", "<u4"), ("ctf/df1_A", "<f4")])
    joined = read_particles(particles, passthrough=[saved(tmp_path / "passthrough.cs", more)])
    assert list(joined["uid"]) == [5, 9, 3]
    assert list(joined["ctf/df1_A"]) == list(more["ctf/df1_A"][[2, 3, 0]])
    np.testing.assert_array_equal(joined["blob/idx"], records([5, 9, 3])["blob/idx"])
    for uids in ([5, 9], []):
        short = saved(tmp_path / "short.cs", more[np.isin(more["uid"], uids)])
        with pytest.raises(
            InputError, match=rf"short\.cs: lacks {3 - len(uids)} of the 3 particles"
        ):
            read_particles(particles, passthrough=[short])


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (np.zeros(3), "not a cryoSPARC particle file"),
        (np.zeros(3, [("id", "u8")]), "no records with a uid"),
        (np.zeros((2, 2), [("uid", "u8")]), "not a cryoSPARC particle file"),
        (np.zeros(3, [("uid", "u8")]), "3 particles have only 1 different uids"),
        (np.array([{}], object), "cannot be read as a cryoSPARC .cs file"),
    ],
)
def test_other_arrays_are_refused(tmp_path, thing, message):
    with pytest.raises(InputError, match=message):
        read_particles(saved(tmp_path / "x.cs", thing))


def test_damaged_and_absent_files_are_refused(tmp_path):
    whole = saved(tmp_path / "x.cs", records([1, 2])).read_bytes()
    for content in (b"", b"garbage", whole[:40], whole[:-1], whole[:60] + b"{[(" + whole[63:]):
        (tmp_path / "x.cs").write_bytes(content)
        with pytest.raises(InputError, match=r"x\.cs: cannot be read as a cryoSPARC"):
            read_particles(tmp_path / "x.cs")
    with pytest.raises(InputError, match=r"absent\.cs: no such file"):
        read_particles(tmp_path / "absent.cs")


def test_many_fields_are_no_obstacle(tmp_path):
    wide = np.zeros(
        1, [("uid", "u8"), *((f"alignments_class_{i}/class_posterior", "f4") for i in range(400))]
    )
    assert len(read_particles(saved(tmp_path / "wide.cs", wide)).dtype.names) == 401


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("cryosparc_J2_particles_exported.cs", 22),
        ("cryosparc_P12_J24_001_particles.cs", 2019),
        ("empiar_10076_7.cs", 7),
    ],
)
def test_files_of_cryosparc_survive_a_round_trip(shared_data, tmp_path, name, n):
    path = shared_data / "cryosparc_samples" / name
    particles = read_particles(path)
    assert len(particles) == n
    write_particles(tmp_path / name, particles, rows=np.arange(n))
    again = read_particles(tmp_path / name)
    assert again.dtype == particles.dtype
    assert again.tobytes() == particles.tobytes()
