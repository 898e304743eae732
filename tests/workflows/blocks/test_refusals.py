"""Bad input of blocks is one message."""

import numpy as np
import pytest

import emhet_dask
from emhet_dask.cli import main
from emhet_dask.formats.mrc import write_map
from tests.workflows.blocks.assembly import APIX, BOX, refused, volumes_of


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"threshold": "100"}, "--threshold 100: .*leaves no voxel.*a lower threshold is needed"),
        ({"threshold": "-100"}, "--threshold -100: .* in all 80 volumes; a higher threshold"),
        (
            {"screen_thresholds": 100},
            "--threshold auto or a factor in --screen-thresholds: the thr",
        ),
        ({"threshold": "nowhere.csv"}, "--threshold nowhere.csv: no such file; expected auto, a"),
        ({"threshold": "nan"}, "--threshold: got nan, expected a finite number"),
        ({"mask": "nowhere.mrc"}, "nowhere.mrc"),
        ({"positive_p": 0.7}, "--positive-p: got 0.7, expected a number"),
        ({"min_voxels": 0}, "--min-voxels: got 0, expected a whole number of at least 1, or auto"),
        ({"screen_p": "1"}, "--screen-p: got '1', expected levels separated by commas"),
        ({"background_length": 500.0}, "none of the .* pairs of .* voxels is farther apart"),
        ({"correction": "holm"}, "--correction: got 'holm', expected one of bonferroni"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(maps, blocks, tmp_path, options, match):
    refused(blocks, str(maps[0] / "e.zarr"), output=str(tmp_path / "out"), match=match, **options)


def test_a_mask_of_another_box(maps, blocks, tmp_path):
    write_map(tmp_path / "mask.mrc", np.ones((16,) * 3, np.float32), voxel_size_angstrom=APIX)
    refused(blocks, str(maps[0] / "e.zarr"), output=str(tmp_path / "out"),
            mask=str(tmp_path / "mask.mrc"), match=r"mask\.mrc: .*16")  # fmt: skip


def test_a_map_is_no_mask(maps, blocks, tmp_path):
    density = np.random.default_rng(0).standard_normal((BOX,) * 3).astype(np.float32)
    write_map(tmp_path / "map.mrc", density, voxel_size_angstrom=APIX)
    refused(blocks, str(maps[0] / "e.zarr"), output=str(tmp_path / "out"),
            mask=str(tmp_path / "map.mrc"), match="expected a mask from 0 to 1")  # fmt: skip


@pytest.mark.parametrize(
    ("n", "match"),
    [
        (5, "5 volumes are too few to tell what comes and goes together; some 40 or more"),
        (16, r"16 volumes are too few for any of \d+ pairs .* significant.*; \d+ or more are need"),
    ],
)
def test_too_few_volumes_and_how_many_would_do(maps, blocks, tmp_path, n, match):
    ensemble = emhet_dask.from_array(volumes_of(maps[0])[:n], voxel_size_angstrom=APIX)
    refused(blocks, ensemble, output=str(tmp_path / "out"), match=match)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "nowhere.csv"],
         "--threshold nowhere.csv: no such file; expected auto, a number or a CSV file"),
        (["--min-voxels", "few"],
         "--min-voxels: got 'few', expected a whole number of at least 1, or auto"),
    ],
)  # fmt: skip
def test_a_wrong_option_ends_with_one_line_and_status_2(maps, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        main(["blocks", str(maps[0] / "e.zarr"), "-o", str(tmp_path / "out"), *options])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"emhet: {message}\n"
    assert not (tmp_path / "out").exists()
