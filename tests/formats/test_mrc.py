"""Maps: read back what was written, by us and by mrcfile, and refuse what is no map."""

from __future__ import annotations

import bz2
import gzip
import struct
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, read_volumes, write_map, write_stack

in_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def cube(n: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, n, n)).astype(np.float32)


def patched(path: Path, *changes: tuple[int, bytes]) -> Path:
    """Overwrite bytes of a file at given offsets."""
    content = bytearray(path.read_bytes())
    for offset, new in changes:
        content[offset : offset + len(new)] = new
    path.write_bytes(content)
    return path


def written(path: Path, n: int = 4) -> Path:
    write_map(path, cube(n), voxel_size_angstrom=1.5)
    return path


dtypes = st.sampled_from([np.int8, np.int16, np.uint16, np.float16, np.float32])
shapes = st.tuples(*[st.integers(1, 6)] * 3)


@in_folder
@given(
    data=st.data(), dtype=dtypes, shape=shapes, apix=st.floats(0.01, 50).filter(lambda x: x != 1)
)
def test_what_is_written_is_read_by_us_and_by_mrcfile(tmp_path, data, dtype, shape, apix):
    floats = st.floats(-1000, 1000, width=16)
    elements = floats if np.dtype(dtype).kind == "f" else None
    volume = data.draw(hnp.arrays(dtype, shape, elements=elements))
    path = tmp_path / "map.mrc"
    write_map(path, volume, voxel_size_angstrom=apix, origin_angstrom=(1.0, -2.5, 3.0))
    header = read_header(path)
    assert header.shape == shape
    assert header.dtype == np.dtype(dtype)
    assert header.n_volumes == 1
    assert header.voxel_size_angstrom == pytest.approx(apix, rel=1e-4, abs=1e-6)
    assert header.origin_angstrom == (1.0, -2.5, 3.0)
    np.testing.assert_array_equal(read_volume(header), volume.astype(np.float32))
    with mrcfile.open(path) as oracle:  # strict: raises where the header is not MRC2014
        np.testing.assert_array_equal(oracle.data, volume)
        assert float(oracle.voxel_size.x) == pytest.approx(apix, rel=1e-6)
        assert float(oracle.header.dmax) == volume.max()
        assert float(oracle.header.rms) == pytest.approx(volume.std(dtype=float), rel=1e-6)
        assert oracle.is_volume()


def test_a_written_map_passes_the_validator_of_mrcfile(tmp_path, capsys):
    write_map(tmp_path / "map.mrc", cube(), voxel_size_angstrom=2.0)
    write_stack(tmp_path / "stack.mrc", np.stack([cube(), cube()]), voxel_size_angstrom=2.0)
    assert mrcfile.validate(tmp_path / "map.mrc"), capsys.readouterr().out
    assert mrcfile.validate(tmp_path / "stack.mrc"), capsys.readouterr().out


def test_equal_input_gives_equal_bytes(tmp_path):
    for name in ("a.mrc", "b.mrc"):
        write_map(tmp_path / name, cube(), voxel_size_angstrom=2.0)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([True, False]), np.int8),
        (np.array([0, 300]), np.int16),
        (np.array([0, 2**20]), np.float32),
        (np.array([0.5, 1.0]), np.float32),
    ],
)
def test_other_dtypes_are_stored_in_the_next_that_holds_them(tmp_path, values, expected):
    volume = values.reshape(2, 1, 1)
    write_map(tmp_path / "map.mrc", volume, voxel_size_angstrom=2.0)
    header = read_header(tmp_path / "map.mrc")
    assert header.dtype == np.dtype(expected)
    np.testing.assert_array_equal(read_volume(header), volume.astype(np.float32))


@pytest.mark.parametrize("data", [np.zeros((2, 2)), np.zeros((2, 2, 2), complex)])
def test_what_is_no_map_is_not_written(tmp_path, data):
    with pytest.raises(InputError, match="expected 3 dimensions of real numbers"):
        write_map(tmp_path / "map.mrc", data, voxel_size_angstrom=2.0)
    assert not (tmp_path / "map.mrc").exists()


def test_a_volume_stack_keeps_its_volumes_apart(tmp_path):
    volumes = np.stack([cube(seed=seed) for seed in range(3)])
    path = tmp_path / "stack.mrc"
    write_stack(path, volumes, voxel_size_angstrom=2.0)
    header = read_header(path)
    assert (header.n_volumes, header.shape) == (3, (4, 4, 4))
    assert header.voxel_size_angstrom == 2.0
    for index in range(3):
        np.testing.assert_array_equal(read_volume(header, index), volumes[index])
    np.testing.assert_array_equal(read_volumes(header, [2, 0]), volumes[[2, 0]])
    with pytest.raises(InputError, match="volume 3 was asked for, the file holds 3"):
        read_volume(header, 3)
    with mrcfile.open(path) as oracle:
        assert oracle.is_volume_stack()
        np.testing.assert_array_equal(oracle.data, volumes)


def test_a_stack_written_by_mrcfile_is_read(tmp_path):
    volumes = np.stack([cube(seed=seed) for seed in range(2)])
    with mrcfile.new(tmp_path / "stack.mrc") as file:
        file.set_data(volumes)
        file.voxel_size = 3.0
    header = read_header(tmp_path / "stack.mrc")
    assert (header.n_volumes, header.voxel_size_angstrom) == (2, 3.0)
    np.testing.assert_array_equal(read_volume(header, 1), volumes[1])


def test_cubes_one_behind_the_other_are_a_stack_only_when_asked(tmp_path):
    column = np.concatenate([cube(seed=0), cube(seed=1)])
    write_map(tmp_path / "column.mrc", column, voxel_size_angstrom=2.0)
    assert read_header(tmp_path / "column.mrc").shape == (8, 4, 4)
    header = read_header(tmp_path / "column.mrc", as_stack=True)
    assert (header.n_volumes, header.shape) == (2, (4, 4, 4))
    np.testing.assert_array_equal(read_volume(header, 1), column[4:])


def test_images_are_no_stack_of_volumes(tmp_path):
    with mrcfile.new(tmp_path / "images.mrcs") as file:
        file.set_data(np.zeros((8, 4, 4), np.float32))
        file.set_image_stack()
    header = read_header(tmp_path / "images.mrcs", as_stack=True)
    assert (header.n_volumes, header.shape) == (1, (8, 4, 4))


@pytest.mark.parametrize("stamp", [b"\x44\x44", b"\x44\x41", b"\x00\x00", b"\x44\x11", b"\x11\x11"])
def test_the_byte_order_is_what_makes_sense_whatever_the_stamp(tmp_path, stamp):
    little = patched(written(tmp_path / "little.mrc"), (212, stamp))
    np.testing.assert_array_equal(read_volume(read_header(little)), cube())
    words = np.frombuffer(little.read_bytes(), "<u4").astype(">u4")
    big = tmp_path / "big.mrc"
    big.write_bytes(words.tobytes())
    patched(big, (208, b"MAP "), (212, stamp))
    header = read_header(big)
    assert header.dtype == np.dtype(">f4")
    assert header.voxel_size_angstrom == 1.5
    volume = read_volume(header)
    assert volume.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(volume, cube())


@pytest.mark.parametrize("side", [1, 255, 256, 257, 1024, 65_535])
def test_byte_orders_are_told_apart_at_every_side(tmp_path, side):
    path = tmp_path / "slab.mrc"
    write_map(path, np.zeros((1, 1, side), np.int8), voxel_size_angstrom=2.0)
    patched(path, (212, b"\x11\x11"))  # a lie
    assert read_header(path).shape == (1, 1, side)


def test_mode_0_is_signed(tmp_path):
    path = patched(written(tmp_path / "map.mrc"), (12, struct.pack("<i", 0)), (1024, b"\xff"))
    assert read_volume(read_header(path))[0, 0, 0] == -1


@pytest.mark.parametrize("mode", [3, 4, 101])
def test_complex_and_packed_modes_are_refused(tmp_path, mode):
    path = patched(written(tmp_path / "map.mrc"), (12, struct.pack("<i", mode)))
    with pytest.raises(InputError, match=rf"mode {mode}\).*real values is needed"):
        read_header(path)


def test_axes_in_another_order_are_turned(tmp_path):
    rng = np.random.default_rng(1)
    volume = rng.normal(size=(2, 3, 4)).astype(np.float32)  # z, y, x
    # Columns along z, rows along x, sections along y: the file is y, x, z.
    write_map(tmp_path / "map.mrc", volume.transpose(1, 2, 0), voxel_size_angstrom=2.0)
    cells = struct.pack("<3i3f", 4, 3, 2, 4 * 2.0, 3 * 2.0, 2 * 2.0)
    starts = struct.pack("<3i", 30, 10, 20)  # of columns (z), rows (x), sections (y)
    axes = struct.pack("<3i", 3, 1, 2)
    path = patched(tmp_path / "map.mrc", (16, starts), (28, cells), (64, axes))
    header = read_header(path)
    assert header.shape == (2, 3, 4)
    assert header.voxel_size_angstrom == 2.0
    assert header.origin_angstrom == (20.0, 40.0, 60.0)
    np.testing.assert_array_equal(read_volume(header), volume)


def test_axes_that_are_none_are_refused_and_empty_ones_are_x_y_z(tmp_path):
    path = patched(written(tmp_path / "map.mrc"), (64, struct.pack("<3i", 0, 0, 0)))
    np.testing.assert_array_equal(read_volume(read_header(path)), cube())
    patched(path, (64, struct.pack("<3i", 1, 1, 3)))
    with pytest.raises(InputError, match="are axes 1, 1, 3 by its header"):
        read_header(path)


def test_voxel_size_is_cell_over_intervals_not_over_columns(tmp_path):
    path = patched(
        written(tmp_path / "map.mrc"), (28, struct.pack("<3i3f", 8, 8, 8, 20.0, 20.0, 20.0))
    )
    assert read_header(path).voxel_size_angstrom == 2.5


@pytest.mark.parametrize(
    ("cell", "intervals"),
    [((0.0,) * 3, 4), ((4.0,) * 3, 4), ((6.0,) * 3, 0), ((np.nan,) * 3, 4), ((-6.0,) * 3, 4),
     ((np.inf,) * 3, 4)],
)  # fmt: skip
def test_a_voxel_size_of_0_or_1_or_nonsense_is_none(tmp_path, cell, intervals):
    packed = struct.pack("<3i3f", *(intervals,) * 3, *cell)
    header = read_header(patched(written(tmp_path / "map.mrc"), (28, packed)))
    assert header.voxel_size_angstrom is None
    assert not header.is_anisotropic


@pytest.mark.parametrize(("z_cell", "expected"), [(6.03, 1.5025), (6.12, None)])
def test_voxels_may_differ_by_one_percent_between_axes(tmp_path, z_cell, expected):
    header = read_header(
        patched(written(tmp_path / "map.mrc"), (40, struct.pack("<3f", 6.0, 6.0, z_cell)))
    )
    assert header.voxel_size_angstrom == (expected and pytest.approx(expected))
    assert header.is_anisotropic is (expected is None)
    assert header.voxel_sizes_angstrom == pytest.approx((1.5, 1.5, z_cell / 4))


def test_origin_is_origin_else_start_times_voxel_size(tmp_path):
    path = patched(written(tmp_path / "map.mrc"), (16, struct.pack("<3i", 2, -4, 6)))
    assert read_header(path).origin_angstrom == (3.0, -6.0, 9.0)
    patched(path, (196, struct.pack("<3f", 10.0, 0.0, 0.0)))
    assert read_header(path).origin_angstrom == (10.0, 0.0, 0.0)
    patched(path, (208, b"\0\0\0\0"))  # before MRC2000 those words meant something else
    assert read_header(path).origin_angstrom == (3.0, -6.0, 9.0)


def test_an_extended_header_is_skipped_and_a_false_length_of_it_overruled(tmp_path):
    path = written(tmp_path / "map.mrc")
    content = path.read_bytes()
    path.write_bytes(content[:1024] + bytes(160) + content[1024:])
    patched(path, (92, struct.pack("<i", 160)))
    assert read_header(path).offset == 1184
    np.testing.assert_array_equal(read_volume(read_header(path)), cube())
    path.write_bytes(content)
    for false_length in (160, -5, 2**31 - 1):
        patched(path, (92, struct.pack("<i", false_length)))
        assert read_header(path).offset == 1024
        np.testing.assert_array_equal(read_volume(read_header(path)), cube())


def test_bytes_behind_the_data_do_no_harm(tmp_path):
    path = written(tmp_path / "map.mrc")
    path.write_bytes(path.read_bytes() + b"trailer")
    np.testing.assert_array_equal(read_volume(read_header(path)), cube())


@pytest.mark.parametrize(
    ("pack", "compression"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2")]
)
def test_compressed_maps_are_told_by_content(tmp_path, pack, compression):
    volumes = np.stack([cube(seed=seed) for seed in range(3)])
    write_stack(tmp_path / "stack.mrc", volumes, voxel_size_angstrom=2.0)
    packed = tmp_path / "packed.map"
    packed.write_bytes(pack((tmp_path / "stack.mrc").read_bytes()))
    header = read_header(packed)
    assert (header.compression, header.n_volumes) == (compression, 3)
    assert header.nbytes == packed.stat().st_size
    np.testing.assert_array_equal(read_volumes(header, [0, 2]), volumes[[0, 2]])
    whole = packed.read_bytes()
    for end in (10, len(whole) // 2, len(whole) - 12):
        packed.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"packed\.map"):
            read_volume(read_header(packed), 2)
    packed.write_bytes(whole[:40] + bytes(30) + whole[70:])
    with pytest.raises(InputError, match=r"packed\.map"):
        read_volume(read_header(packed), 2)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_compressed_header_cannot_make_us_reserve_what_is_not_there(tmp_path, pack):
    path = written(tmp_path / "map.mrc")
    patched(path, (0, struct.pack("<3i", 60_000, 60_000, 60_000)))
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(InputError, match=r"map\.mrc"):
        read_volume(read_header(path))


def test_absent_short_and_cut_files_are_named_with_the_reason(tmp_path):
    with pytest.raises(InputError, match=r"absent\.mrc: no such file"):
        read_header(tmp_path / "absent.mrc")
    with pytest.raises(InputError, match="Is a directory"):
        read_header(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_header("a\0b.mrc")
    path = written(tmp_path / "map.mrc")
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(InputError, match="100 bytes are too few for an MRC header"):
        read_header(path)
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"cut short; its header speaks of 1,280 bytes, .* 1,279"):
        read_header(path)
    path.write_bytes(content)
    header = read_header(path)
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="cut short"):
        read_volume(header)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        read_volume(header)


def test_text_is_no_map(tmp_path):
    path = tmp_path / "notes.mrc"
    path.write_text("these are notes, not a map\n" * 100)
    with pytest.raises(InputError, match="not an MRC map"):
        read_header(path)


def read_or_refusal(path: Path) -> tuple[int, ...] | str:
    """Return the shape that is read, or the one line that refuses; let all else pass."""
    try:
        return read_volume(read_header(path, as_stack=True)).shape
    except InputError as error:
        return str(error)


@in_folder
@given(st.binary(max_size=3000))
def test_garbage_raises_nothing_but_input_errors(tmp_path, content):
    path = tmp_path / "garbage.mrc"
    path.write_bytes(content)
    answer = read_or_refusal(path)
    assert isinstance(answer, tuple) or answer.startswith(str(path))


@in_folder
@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 1300),
    st.sampled_from([None, gzip.compress, bz2.compress]),
)
def test_a_damaged_map_is_read_or_refused_in_one_line(tmp_path, changes, end, pack):
    path = patched(written(tmp_path / "damaged.mrc"), *((4 * word, new) for word, new in changes))
    content = path.read_bytes()[:end]
    path.write_bytes(pack(content) if pack else content)
    answer = read_or_refusal(path)
    if isinstance(answer, tuple):
        assert len(answer) == 3
    else:
        assert answer.startswith(str(path))
        assert "\n" not in answer


@pytest.mark.shared_data
def test_maps_of_other_programs(shared_data):
    decoded = sorted((shared_data / "ribosome_ensemble").glob("*.mrc"))
    assert len(decoded) == 20
    classes = sorted((shared_data / "relion_project/Class3D").glob("*/*.mrc"))
    for path in [*decoded, *classes]:
        header = read_header(path)
        assert (header.shape, header.n_volumes) == ((64, 64, 64), 1)
        assert header.voxel_size_angstrom == (6.55 if path in decoded else 3.0)
        assert header.origin_angstrom == (0.0, 0.0, 0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mrcfile warns of the decoded maps' stamps
            with mrcfile.open(path, permissive=True) as file:
                oracle = file.data.copy()
        np.testing.assert_array_equal(read_volume(header), oracle)
