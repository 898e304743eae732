"""One cluster for the tests of a file: starting one takes longer than most of them."""

import pytest

from emhet_dask.runtime import connect


# Not for the session: while it lives, it is what dask.compute of other tests would use.
@pytest.fixture(scope="module")
def client():
    with connect("local") as client:
        yield client
