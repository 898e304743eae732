"""Reference maps brought to the images' voxels."""

import numpy as np
import pytest

from emhet_dask.analysis.references import to_box


def blob(box, *, voxel, at, width=12.0):
    """Return a Gaussian (z, y, x), its place and width in Å from the middle voxel."""
    axis = (np.arange(box) - box // 2) * voxel
    square = sum(
        np.square(axis - place).reshape(shape)
        for place, shape in zip(at, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    return np.exp(-square / (2 * width**2)).astype(np.float32)


@pytest.mark.parametrize(
    ("box", "voxel"), [(32, 4.0), (48, 4.0), (24, 4.0), (64, 2.0), (40, 3.3), (28, 5.13)]
)
def test_what_lies_somewhere_stays_there(box, voxel):
    at = (8.0, -4.0, 12.0)
    found = to_box(
        blob(box, voxel=voxel, at=at), voxel_size_angstrom=voxel, box=32, pixel_size_angstrom=4.0
    )
    assert found.shape == (32, 32, 32)
    np.testing.assert_allclose(found, blob(32, voxel=4.0, at=at), atol=0.02)


def test_beyond_a_map_is_its_border():
    found = to_box(np.full((8,) * 3, 3.0), voxel_size_angstrom=1.0, box=16, pixel_size_angstrom=1.0)
    np.testing.assert_allclose(found, 3.0, rtol=1e-6)
