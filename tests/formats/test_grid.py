"""One grid for all volumes, or one message that says what would give one."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from emhet_dask.errors import InputError
from emhet_dask.formats.grid import check_uniform
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.sources import find_volumes


def maps(folder: Path, *grids: tuple[int, float], origins=None) -> list:
    """Find one map per pair of box and voxel size."""
    for number, (box, apix) in enumerate(grids):
        origin = (0, 0, 0) if origins is None else origins[number]
        write_map(
            folder / f"vol_{number}.mrc", np.ones((box,) * 3), voxel_size_angstrom=apix,
            origin_angstrom=origin,
        )  # fmt: skip
    return find_volumes([folder])


def test_maps_of_one_grid_share_it(tmp_path):
    grid = check_uniform(maps(tmp_path, (4, 2.0), (4, 2.0004), origins=[(1, 2, 3), (1, 2, 3)]))
    assert (grid.box, grid.voxel_size_angstrom, grid.origin_angstrom) == (4, 2.0, (1, 2, 3))
    assert grid.n_other_origins == 0


def test_other_origins_are_counted(tmp_path):
    volumes = maps(tmp_path, *[(4, 2.0)] * 3, origins=[(0, 0, 0), (0.1, 0, 0), (0, 0, -8)])
    assert check_uniform(volumes).n_other_origins == 1


def test_mixed_voxel_sizes_are_told_with_the_files_and_the_remedy(tmp_path):
    volumes = maps(tmp_path, (4, 2.0), (4, 2.5), (4, 2.0))
    with pytest.raises(
        InputError, match=r"mixed: 2 Å in 2 maps .*vol_0.*, 2\.5 Å in .*vol_1.*--apix"
    ):
        check_uniform(volumes)
    assert check_uniform(volumes, apix=2.2).voxel_size_angstrom == 2.2


def test_mixed_boxes_of_one_extent_need_a_box(tmp_path):
    volumes = maps(tmp_path, (8, 2.0), (4, 4.0))
    with pytest.raises(InputError, match=r"8 voxels in .*4 voxels in .*so --box 4 brings them"):
        check_uniform(volumes)
    assert check_uniform(volumes, box=4).box == 8


def test_mixed_extents_cannot_be_brought_together(tmp_path):
    volumes = maps(tmp_path, (8, 2.0), (4, 2.0))
    for options in ({}, {"box": 4}, {"apix": 2.0}, {"apix": 2.0, "box": 4}):
        with pytest.raises(InputError, match="so no --box can bring them together"):
            check_uniform(volumes, **options)


def test_a_box_is_never_larger_than_the_maps(tmp_path):
    with pytest.raises(InputError, match=r"--box 16 is larger than the maps.*expected at most 4"):
        check_uniform(maps(tmp_path, (8, 2.0), (4, 4.0)), box=16)


def test_maps_without_a_voxel_size_need_one(tmp_path):
    volumes = maps(tmp_path, (4, 1.0), (4, 0.0), (4, 1.0), (4, 1.0))
    with pytest.raises(InputError, match=r"^4 maps \(.*, …\): no usable .* state it with --apix$"):
        check_uniform(volumes)
    assert check_uniform(volumes, apix=1.0).voxel_size_angstrom == 1.0
    with pytest.raises(InputError, match=r"--apix \(the others state 3\)$"):
        check_uniform([*volumes, *maps(tmp_path, (4, 3.0))])


def test_edges_that_differ_are_told(tmp_path):
    volumes = maps(tmp_path, (4, 2.0), (4, 2.0))
    path = tmp_path / "vol_1.mrc"
    content = bytearray(path.read_bytes())
    content[48:52] = struct.pack("<f", 10.0)
    path.write_bytes(content)
    volumes = find_volumes([tmp_path])
    with pytest.raises(InputError, match=r"vol_1\.mrc: voxels of 2 × 2 × 2\.5 Å; expected equal"):
        check_uniform(volumes)
    assert check_uniform(volumes, apix=2.0).voxel_size_angstrom == 2.0


def test_nothing_has_no_grid():
    with pytest.raises(InputError, match="no map given"):
        check_uniform([])


@pytest.mark.shared_data
def test_decoded_ribosomes_share_a_grid(shared_data):
    grid = check_uniform(find_volumes([shared_data / "ribosome_ensemble"]))
    assert (grid.box, grid.voxel_size_angstrom) == (64, 6.55)
