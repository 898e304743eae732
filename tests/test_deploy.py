"""What lies in deploy/ is what the code accepts."""

from pathlib import Path

import pytest

from emhet_dask.runtime.jobs import _read_yaml

DEPLOY = Path(__file__).parents[1] / "deploy"


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_cluster_files_are_accepted(path):
    described = _read_yaml(path)
    assert described["class"].endswith("Cluster")
