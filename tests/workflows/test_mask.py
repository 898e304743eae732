"""Masks from maps: distances by brute force, what is refused, and what is never overwritten."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import emhet_dask
from emhet_dask.analysis.intensity import volume_threshold
from emhet_dask.cli import main
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map

BOX, APIX = 12, 2.5


@pytest.fixture
def mask(client):
    def run(*arguments, **options):
        return emhet_dask.mask(*arguments, **{"cluster": client, "quiet": True, **options})

    return run


@pytest.fixture
def blob(tmp_path):
    """Two bright pieces in weak noise, off the centre of the box."""
    density = np.random.default_rng(0).normal(0, 0.01, (BOX,) * 3).astype(np.float32)
    density[2:4, 3:6, 4:6] = 1
    density[8, 8, 8:10] = 1
    path = tmp_path / "part_chainA.mrc"
    write_map(path, density, voxel_size_angstrom=APIX, origin_angstrom=(5.0, 0.0, -2.5))
    return path, density


def nearest(inside):
    """Return the distance of every voxel to the nearest one inside, in voxels."""
    points = np.argwhere(np.ones_like(inside))
    return cdist(points, np.argwhere(inside)).min(axis=1).reshape(inside.shape)


def by_hand(core, extend, soft):
    """Do what relion_mask_create does (autoMask in src/mask.cpp), with widths in voxels."""
    inside = core | (nearest(core) ** 2 < extend**2)
    outside = nearest(inside)
    edge = 0.5 + 0.5 * np.cos(np.pi * outside / soft) if soft else 0.0
    return np.where(inside, 1.0, np.where(outside < soft, edge, 0.0))


def written(folder):
    header = read_header(folder / "part_chainA.mrc")
    return header, read_volume(header)


@pytest.mark.parametrize(("extend", "soft"), [(0, 0), (5.1, 0), (0, 7), (3, 6)])
def test_masks_are_those_of_relion(blob, mask, tmp_path, extend, soft):
    path, density = blob
    found = mask(
        [str(path)], output=str(tmp_path / "m"), threshold=0.5, extend=extend, soft_edge=soft
    )
    header, values = written(tmp_path / "m")
    np.testing.assert_allclose(
        values, by_hand(density >= 0.5, extend / APIX, soft / APIX), atol=1e-5
    )
    assert header.voxel_size_angstrom == pytest.approx(APIX)
    assert header.origin_angstrom == (5.0, 0.0, -2.5)
    assert found.fractions == {"part_chainA": pytest.approx((values > 0).mean())}
    assert "1 mask in" in found.describe()


def test_the_threshold_is_that_of_the_landscape(blob, mask, tmp_path):
    path, density = blob
    mask([str(path)], output=str(tmp_path / "m"))
    np.testing.assert_array_equal(written(tmp_path / "m")[1], density >= volume_threshold(density))


def test_the_largest_piece(blob, mask, tmp_path):
    path, density = blob
    mask([str(path)], output=str(tmp_path / "m"), threshold=0.5, largest=1)
    expected = density >= 0.5
    expected[8] = False
    np.testing.assert_array_equal(written(tmp_path / "m")[1], expected)
    mask([str(path)], output=str(tmp_path / "both"), threshold=0.5, largest=5)
    np.testing.assert_array_equal(written(tmp_path / "both")[1], density >= 0.5)


def test_a_folder_of_maps_from_the_command_line(blob, tmp_path, capsys):
    path, density = blob
    write_map(tmp_path / "b.map", density, voxel_size_angstrom=APIX)
    main(["mask", str(tmp_path), "-o", str(tmp_path / "m"), "--threshold", "0.5", "-q"])
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["b.mrc", path.name]
    assert "2 masks in" in capsys.readouterr().out


def test_nothing_is_replaced_without_being_asked(blob, mask, tmp_path):
    path, _ = blob
    mask([str(path)], output=str(tmp_path / "m"), threshold=0.5)
    with pytest.raises(InputError, match=r"part_chainA\.mrc exists already; --overwrite"):
        mask([str(path)], output=str(tmp_path / "m"), threshold=0.4)
    mask([str(path)], output=str(tmp_path / "m"), threshold=0.5, largest=1, overwrite=True)
    assert written(tmp_path / "m")[1].sum() == 12
    with pytest.raises(InputError, match=r"would replace .*, its map"):
        mask([str(path)], output=str(tmp_path), threshold=0.5, overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 3}, r"part_chainA\.mrc: no voxel is inside at --threshold 3; densities"),
        ({"threshold": -9}, r"part_chainA\.mrc: all voxels are inside at --threshold -9"),
        ({"threshold": 0.5, "extend": 99}, "--extend 99: the mask fills the whole box"),
        ({"extend": -1}, "--extend: got -1, expected a number of at least 0"),
        ({"largest": 0}, "--largest: got 0"),
    ],
)
def test_options_that_cannot_be_used(blob, mask, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        mask([str(blob[0])], output=str(tmp_path / "m"), **options)
    assert not list(tmp_path.glob("m/*"))


def test_maps_that_cannot_be_used(blob, mask, tmp_path):
    path, density = blob
    out = str(tmp_path / "m")
    with pytest.raises(InputError, match=r"nothere\.mrc: no such file"):
        mask([str(tmp_path / "nothere.mrc")], output=out)
    with pytest.raises(InputError, match="MAPS: none given"):
        mask([], output=out)
    density = density.copy()
    density[0, 0, 0] = np.nan
    write_map(path, density, voxel_size_angstrom=APIX)
    with pytest.raises(InputError, match=r"part_chainA\.mrc: holds NaN"):
        mask([str(path)], output=out)
    write_map(path, density, voxel_size_angstrom=0)
    with pytest.raises(InputError, match="its header has no voxel size; give it with --apix"):
        mask([str(path)], output=out)


def test_a_constant_map(mask, tmp_path):
    write_map(tmp_path / "flat.mrc", np.ones((8, 8, 8), np.float32), voxel_size_angstrom=2)
    with pytest.raises(InputError, match=r"flat\.mrc: all voxels are inside at the automatic"):
        mask([str(tmp_path / "flat.mrc")], output=str(tmp_path / "m"))
