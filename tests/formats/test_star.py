"""STAR files: kept as they are through reading and writing, refused where RELION would stumble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.formats.star import (
    count_particles,
    particle_identity,
    read_particles,
    read_star,
    write_particles,
    write_star,
)

in_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

RELION_31 = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
old 3 300.000000
new 1 200.000000


# version 30001

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnOpticsGroup #3
_rlnOriginXAngst #4
_rlnOddZernike #5
000001@a.mrcs 007 1    0.250000 [0.1,-2]
000002@a.mrcs 007 3 -7.04404e-04 [0.1,-2]
000001@a.mrcs 008 1 1.316011e+05 [0.1,-2]
000010@a.mrcs 008 1   -12.500000 [0.1,-2]

""".replace("\n", " \n")  # RELION ends its lines so
RELION_30 = """# RELION; version 3.0.6

data_images

loop_
_rlnImageName #1
_rlnOriginX #2
_rlnClassNumber #3
1@a.mrcs 0.5 2
2@a.mrcs -1.5 10
"""


def saved(folder: Path, text: str, name: str = "particles.star") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_values_keep_their_kind(tmp_path):
    table = read_particles(saved(tmp_path, RELION_31))
    assert (table.kind, table.version, table.block) == ("3.1", 30001, "particles")
    particles = table.particles
    assert list(particles["rlnMicrographName"]) == ["007", "007", "008", "008"]
    assert particles["rlnOpticsGroup"].dtype == np.int64
    assert list(particles["rlnOriginXAngst"]) == [0.25, -7.04404e-04, 1.316011e05, -12.5]
    assert list(particles["rlnOddZernike"]) == ["[0.1,-2]"] * 4


def test_a_file_without_version_or_optics_is_relion_3_0(tmp_path):
    table = read_particles(saved(tmp_path, RELION_30))
    assert (table.kind, table.version, table.block, table.optics) == ("3.0", None, "images", None)
    write_particles(tmp_path / "out.star", table, rows=np.array([1]))
    written = (tmp_path / "out.star").read_text()
    assert "data_images" in written
    assert "version" not in written
    assert count_particles(tmp_path / "out.star") == 1


def test_an_empty_optics_table_is_none(tmp_path):
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n\n"
    table = read_particles(saved(tmp_path, RELION_30.replace("data_i", optics + "data_i")))
    assert (table.kind, table.optics) == ("3.0", None)


def test_copies_are_numbered_by_name(tmp_path):
    names, copies = particle_identity(read_particles(saved(tmp_path, RELION_31)))
    assert list(names) == ["000001@a.mrcs", "000002@a.mrcs", "000001@a.mrcs", "000010@a.mrcs"]
    assert list(copies) == [0, 0, 1, 0]


def test_a_subset_keeps_columns_and_numbers_and_drops_unused_optics(tmp_path):
    table = read_particles(saved(tmp_path, RELION_31))
    write_particles(tmp_path / "out.star", table, rows=np.array([3, 0]))
    content = (tmp_path / "out.star").read_bytes()
    assert b"\r" not in content
    assert content.count(b"\n# version 30001\n") == 2  # one before each block, as RELION writes
    subset = read_particles(tmp_path / "out.star")
    pd.testing.assert_frame_equal(
        subset.particles, table.particles.iloc[[3, 0]].reset_index(drop=True)
    )
    assert subset.optics is not None
    assert list(subset.optics["rlnOpticsGroup"]) == [1]
    assert list(subset.optics["rlnOpticsGroupName"]) == ["new"]


def test_rows_may_be_a_mask_and_must_exist(tmp_path):
    table = read_particles(saved(tmp_path, RELION_31))
    write_particles(tmp_path / "out.star", table, rows=np.array([False, True, False, False]))
    assert list(read_particles(tmp_path / "out.star").particles["rlnOpticsGroup"]) == [3]
    for rows in ([4], [-1], [0.5]):
        with pytest.raises(InputError, match=r"has 4 particles \(rows 0 to 3\); asked for rows"):
            write_particles(tmp_path / "out.star", table, rows=np.array(rows))


def test_blocks_that_are_not_ours_are_written_back(tmp_path):
    general = "data_general\n\n_rlnTomoSubTomosAre2DStacks                       1\n\n"
    table = read_particles(saved(tmp_path, general + RELION_31))
    assert table.order == ("general", "optics", "particles")
    write_particles(tmp_path / "out.star", table)
    again = read_star(tmp_path / "out.star")
    assert list(again.blocks) == ["general", "optics", "particles"]
    assert again.blocks["general"] == {"rlnTomoSubTomosAre2DStacks": 1}
    assert again.table("general").loc[0, "rlnTomoSubTomosAre2DStacks"] == 1


words = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="\"'#"),
    min_size=1,
)
phrases = st.lists(words, min_size=1, max_size=3).map(" ".join)


@in_folder
@given(
    names=st.lists(phrases, min_size=1, max_size=8),
    data=st.data(),
)
def test_every_value_reads_back_as_it_was_written(tmp_path, names, data):
    n = len(names)
    column = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=n, max_size=n)
    whole = st.lists(st.integers(-(2**62), 2**62), min_size=n, max_size=n)
    frame = pd.DataFrame(
        {
            "rlnImageName": names,
            "rlnAngleRot": np.array(data.draw(column)),
            "rlnClassNumber": np.array(data.draw(whole)),
        }
    )
    pair = {"rlnJobName": names[0].replace("\\", "/")}
    write_star(tmp_path / "x.star", {"particles": frame, "job": pair})
    star = read_star(tmp_path / "x.star")
    read = star.table("particles")
    assert list(read["rlnImageName"]) == names
    np.testing.assert_array_equal(read["rlnClassNumber"], frame["rlnClassNumber"])
    # Shortest text back to the number: exact, or the last bit of 17 digits.
    np.testing.assert_array_max_ulp(
        read["rlnAngleRot"].to_numpy(float), frame["rlnAngleRot"].to_numpy(), maxulp=1
    )
    assert star.blocks["job"] == pair


@pytest.mark.parametrize("spelled", ["nan", "NaN", "<NA>"])
def test_text_that_spells_nan_stays_text(tmp_path, spelled):
    frame = pd.DataFrame({"rlnAngleRot": [1.5, np.nan], "rlnImageName": [spelled, "2@a b.mrcs"]})
    other = pd.DataFrame({"rlnOpticsGroupName": ["a", spelled]})
    write_star(tmp_path / "x.star", {"optics": other, "particles": frame})
    star = read_star(tmp_path / "x.star")
    assert list(star.table("particles")["rlnImageName"]) == [spelled, "2@a b.mrcs"]
    assert np.isnan(star.table("particles")["rlnAngleRot"][1])
    assert list(star.table("optics")["rlnOpticsGroupName"]) == ["a", spelled]


def test_starfile_itself_reads_what_we_write(tmp_path):
    table = read_particles(saved(tmp_path, RELION_31))
    write_particles(tmp_path / "out.star", table)
    oracle = starfile.read(tmp_path / "out.star", parse_as_string=["rlnMicrographName"])
    pd.testing.assert_frame_equal(oracle["particles"], table.particles)
    pd.testing.assert_frame_equal(oracle["optics"], table.optics)


def test_what_star_cannot_carry_is_refused(tmp_path):
    for value in ('a"b', "a'b", "a#b", "a\tb", "a\nb"):
        with pytest.raises(InputError, match=r"cannot write .* as STAR"):
            write_star(tmp_path / "x.star", {"particles": pd.DataFrame({"rlnImageName": [value]})})
    with pytest.raises(InputError, match=r"cannot write .* as STAR"):
        write_star(tmp_path / "x.star", {"job": {"rlnJobName": "a\\b"}})


def test_a_file_mended_in_place_is_seen_as_it_is(tmp_path):
    with pytest.raises(InputError):
        read_star(saved(tmp_path, "data_\n\nloop_\n_rlnImageName\n# empty\n"))
    assert list(read_star(saved(tmp_path, RELION_30)).blocks) == ["images"]


def cut_last_row(text: str) -> str:
    lines = text.rstrip().split("\n")
    return "\n".join([*lines[:-1], lines[-1].rsplit(None, 2)[0]]) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RELION_31.replace("\n", "\r\n"), r"Windows line ends \(CRLF\), at which RELION stops"),
        (cut_last_row(RELION_31), r"line 27 has 3 values, the table data_particles has 5 columns"),
        (RELION_31.replace(" 008 1   -12", " 008 1 9 -12"), "line 27 has 6 values"),
        (RELION_31.replace("2@a.mrcs 007 3", "2@a.mrcs 007 4"),
         r"1 particles are of optics groups that data_optics does not define \(4; defined"),
        (RELION_31.replace("_rlnOpticsGroup #3 \n", "_rlnOther #3 \n"),
         "no column _rlnOpticsGroup to choose among 2 optics groups"),
        (RELION_31.replace("_rlnOpticsGroup #2 \n", "_rlnOther #2 \n"),
         "data_optics has no column _rlnOpticsGroup"),
        (RELION_31.replace("data_particles", "data_micrographs"),
         r"expected data_particles .* found data_micrographs"),
        (RELION_31.replace("data_particles", "data_optics"), "starts a second block data_optics"),
        (RELION_31.replace("_rlnImageName", "_rlnName"), "has no particles"),
        (RELION_31.replace("000002@a.mrcs", "000002@a#2.mrcs"), "has a # inside the value"),
        (RELION_31.replace("000002@a.mrcs", "000002@a'2.mrcs"), "has a ' inside the value"),
        ("data_a\n_rlnX a\\b\n", r"has a \\ inside the value"),
        ("data_a\n_rlnX a'b'\n", "has a ' inside the value"),
        (RELION_31.replace("_rlnMicrographName", "_rlnImageName"), "repeats the label"),
        (RELION_31[: RELION_31.index("loop_")], "data_optics has no labels; is it cut short"),
        (RELION_31.replace("_rlnVoltage #3 \n", "_rlnVoltage #3 \n# volts\n_rlnExtra\n")
         .replace("00.000000 \n", "00.000000 1\n"), "line 11 is a label after a comment"),
        ("# coding: nosuch\n" + RELION_30, "starfile parses another table"),
        ("data_particles\nloop_\nloop_\n_rlnImageName\n1@a\n", "starts a second table"),
        ("data_a b\n_rlnX 1\n", "not the name of a block"),
        ("data_a\n_rlnX 1 2\n", "3 words where a label was expected"),
        ("data_a\nstray\n", "neither a label nor a row"),
        ("hello\n", "line 1 comes before any data_ line"),
        ("", "no data_ block with labels"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_refused_in_one_line(tmp_path, text, message):
    path = saved(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_particles(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_absent_files_folders_and_binaries_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent\.star: no such file"):
        read_star(tmp_path / "absent.star")
    with pytest.raises(InputError, match="Is a directory"):
        read_star(tmp_path)
    (tmp_path / "binary.star").write_bytes(b"data_\n\xff\xfe\x00")
    with pytest.raises(InputError, match="bytes that are not text"):
        read_star(tmp_path / "binary.star")


def test_a_block_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    star = read_star(saved(tmp_path, RELION_31))
    with pytest.raises(InputError, match="no block data_model; it holds data_optics, data_part"):
        star.table("model")


@in_folder
@given(st.data())
def test_damaged_text_raises_nothing_but_input_errors(tmp_path, data):
    start = data.draw(st.integers(0, len(RELION_31)))
    end = data.draw(st.integers(start, len(RELION_31)))
    junk = data.draw(st.text(st.sampled_from("data_loop_ \n\"'#@1\r\x00é{"), max_size=12))
    path = saved(tmp_path, RELION_31[:start] + junk + RELION_31[end:])
    try:
        answer = len(read_particles(path).particles)
    except InputError as error:
        answer = str(error)
    assert isinstance(answer, int) or answer.startswith(str(path))


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "kind", "version", "n"),
    [
        ("FinalRefinement-OriginalParticles-PfCRT.star", "3.0", None, 5),
        ("empiar_10076_7.star", "3.0", None, 7),
        ("relion31.6opticsgroups.star", "3.1", None, 139),
        ("relion31.star", "3.1", 30001, 5),
        ("relion31.v2.star", "3.1", 30001, 5),
        ("relion5.star", "3.1", 50001, 17),
        ("sta_testing.star", "3.0", None, 219),
        ("toy_projections_13.star", "3.1", None, 13),
    ],
)
def test_files_of_relion_survive_a_round_trip(shared_data, tmp_path, name, kind, version, n):
    path = shared_data / "star_samples" / name
    table = read_particles(path)
    assert (table.kind, table.version, len(table.particles)) == (kind, version, n)
    assert count_particles(path) == n
    write_particles(tmp_path / name, table)
    again = read_particles(tmp_path / name)
    assert (again.kind, again.block) == (table.kind, table.block)
    pd.testing.assert_frame_equal(again.particles, table.particles)
    if table.optics is not None:
        in_use = table.optics
        if "rlnOpticsGroup" in table.particles:
            in_use = in_use[in_use["rlnOpticsGroup"].isin(table.particles["rlnOpticsGroup"])]
        pd.testing.assert_frame_equal(again.optics, in_use.reset_index(drop=True))


@pytest.mark.shared_data
def test_every_file_of_a_relion_job_is_read(shared_data):
    folder = shared_data / "relion_project/Class3D/job085"
    model = read_star(folder / "run_it025_model.star")
    assert len(model.blocks) == 2 + 4 + 1 + 40 + 4
    assert model.blocks["model_general"]["rlnNrClasses"] == 4
    optimiser = read_star(folder / "run_it025_optimiser.star")
    assert optimiser.blocks["optimiser_general"]["rlnCurrentIteration"] == 25
    assert len(read_star(folder / "run_it025_sampling.star").table("sampling_directions")) == 10
    assert len(read_particles(folder / "run_it025_data.star").particles) == 4000
