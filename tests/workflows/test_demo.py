"""The demonstration: the truth of the blocks is read off the right table, and all of it works."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.workflows.demo import planted_blocks


def test_subunits_that_come_together_are_one_block_and_the_core_is_none(tmp_path):
    labels = np.arange(16**3).reshape(16, 16, 16) % 6
    write_map(tmp_path / "t.mrc", labels.astype(np.float32), voxel_size_angstrom=1.0)
    truth = pd.DataFrame(
        {
            "state": [0, 1, 2],
            "subunit_001": [1, 1, 1],
            "subunit_002": [1, 0, 1],
            "subunit_003": [0, 1, 1],
            "subunit_004": [1, 0, 1],
            "subunit_005": [0, 0, 0],
        }
    )
    planted = planted_blocks(tmp_path / "t.mrc", truth)
    np.testing.assert_array_equal(planted, np.array([0, 0, 2, 3, 2, 0])[labels])


def test_too_few_maps_for_blocks_are_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="--n: got 30, expected a whole number of at least 40"):
        emhet_dask.demo(output=str(tmp_path / "demo"), n=30)
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_all_of_it_works_and_tells_the_truth(client, tmp_path):
    found = emhet_dask.demo(output=str(tmp_path / "demo"), n=60, cluster=client, quiet=True)
    truth = pd.read_csv(tmp_path / "demo" / "maps" / "truth.csv")["state"]
    for file, column, value in (
        ("landscape/clusters/cluster_labels.csv", "cluster", found.adjusted_rand_index),
        ("similarity/cluster_results.csv", "Cluster_Label", found.similarity_adjusted_rand_index),
    ):
        labels = pd.read_csv(tmp_path / "demo" / file)[column]
        assert adjusted_rand_score(truth, labels) == pytest.approx(value)
    assert found.n_true_blocks == 6
    assert found.blocks.n_blocks >= 4
    assert found.blocks_adjusted_rand_index > 0.99
    assert 0.4 < found.blocks_assigned <= 1
    for command in ("landscape", "similarity", "blocks"):
        assert (tmp_path / "demo" / command / "report.html").is_file()
    said = found.describe()
    assert f"{found.blocks.n_blocks} blocks found, 6 planted" in said
    assert f"{found.landscape.n_clusters} states found, {found.n_true_states} planted" in said
