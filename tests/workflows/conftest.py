"""One cluster for all tests of workflows: starting one takes longer than most of them."""

import pytest

from emhet_dask.runtime import connect


@pytest.fixture(scope="session")
def client():
    with connect("local") as client:
        yield client
