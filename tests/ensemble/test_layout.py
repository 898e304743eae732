"""How ensembles and matrices are cut."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.ensemble.layout import plan_layout
from emhet_dask.ensemble.matrix import plan_matrix

MIB = 1 << 20


@given(
    n=st.integers(1, 200_000),
    box=st.sampled_from([16, 32, 64, 100, 128, 256, 400]),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_shards_cover_every_volume_once(n, box, dtype):
    layout = plan_layout(n, box, dtype)
    bounds = list(layout.shards())
    assert bounds[0][0] == 0
    assert bounds[-1][1] == n
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(bounds))
    assert layout.volumes_per_shard % layout.volumes_per_chunk == 0


def test_hundred_thousand_volumes_are_thousands_of_files():
    layout = plan_layout(100_000, 128, "float32")
    assert layout.volumes_per_chunk == 1
    assert 1_000 < layout.n_shards < 10_000
    assert layout.volumes_per_shard * layout.volume_bytes == 128 * MIB


def test_a_small_store_still_has_shards_to_share_out():
    assert plan_layout(1_000, 64, "float32").n_shards >= 60


def test_small_volumes_share_a_chunk_of_a_mebibyte():
    layout = plan_layout(100_000, 32, "float16")
    assert layout.volumes_per_chunk * layout.volume_bytes == MIB


@given(n=st.integers(1, 200_000), voxels=st.integers(1, 500_000))
def test_bands_cover_every_row_once_and_stay_small(n, voxels):
    layout = plan_matrix(n, voxels, "float32")
    assert layout.bands[0][0] == 0
    assert layout.bands[-1][1] == n
    assert sum(stop - start for start, stop in layout.bands) == n
    assert layout.rows * voxels * 4 <= max(128 * MIB, voxels * 4)
