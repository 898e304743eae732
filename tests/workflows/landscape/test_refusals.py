"""Bad input of a landscape is one message and leaves nothing behind."""

import numpy as np
import pytest

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from tests.workflows.landscape.conftest import APIX, BOX, N


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": N}, rf"--n-components: got {N}, expected at most {N - 1} for {N} vol"),
        ({"n_clusters": N + 1}, rf"--n-clusters: got {N + 1}, expected at most {N}"),
        ({"mask": "absent.mrc"}, "--mask: no file absent.mrc"),
        ({"threshold": 1e9}, "mask is empty: .* densities range from"),
        ({"threshold": -99.0}, "--threshold: -99 lies inside the noise.* expected something near"),
        ({"mask": "none", "dilate": 5}, "--dilate: --mask none is the whole box"),
        ({"keep": "0-99"}, f"--keep: no volume {N}; expected 0 to {N - 1}"),
        ({"keep": "one"}, "--keep: got 'one', expected volume numbers"),
        ({"keep": "4"}, "1 usable volume, expected at least 2"),
        ({"keep": "nowhere:0"}, "--keep: nowhere: .* expected a landscape folder"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing_behind(
    maps, landscape, tmp_path, options, message
):
    with pytest.raises(InputError, match=message) as refused:
        landscape(str(maps[0] / "e.zarr"), output=str(tmp_path / "new"), **options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "new" / "report.html").exists()


def bad_mask(folder, values, apix=APIX):
    write_map(folder / "bad.mrc", values, voxel_size_angstrom=apix)
    return str(folder / "bad.mrc")


@pytest.mark.parametrize(
    ("shape", "apix", "value", "message"),
    [
        (BOX, APIX, 0.0, r"bad.mrc: the mask is empty at threshold 0.5: .* from 0 to 0"),
        (BOX, APIX, 0.2, r"range from 0 to 0.2; a threshold of 0.1"),
        (BOX, 2 * APIX, 1.0, r"384 Å, but the volumes are 192 Å; expected the same extent"),
        (BOX // 2, APIX, 1.0, r"96 Å, but the volumes are 192 Å"),
    ],
)
def test_masks_that_do_not_fit(maps, landscape, tmp_path, shape, apix, value, message):
    values = np.zeros((shape,) * 3, np.float32)
    values[shape // 4 : shape // 2, shape // 4 : shape // 2, shape // 4 : shape // 2] = value
    with pytest.raises(InputError, match=message):
        landscape(
            str(maps[0] / "e.zarr"),
            output=str(tmp_path / "o"),
            mask=bad_mask(tmp_path, values, apix),
        )


def test_a_damaged_store_is_told_in_a_line(maps, landscape, tmp_path):
    import shutil

    store = tmp_path / "e.zarr"
    shutil.copytree(maps[0] / "e.zarr", store)
    shard = max(path for path in (store / "volumes" / "c").rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[1000] ^= 255
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged, c/\S+: a checksum is wrong; emhet info"):
        landscape(str(store), output=str(tmp_path / "o"))
    with pytest.raises(InputError, match=r"damaged, c/\S+: a checksum is wrong"):
        emhet_dask.export(str(store), output=str(tmp_path / "m"), quiet=True)
    shard.unlink()
    with pytest.raises(InputError, match=r"1 shards are missing, the first is shard volumes/c/"):
        landscape(str(store), output=str(tmp_path / "p"))
