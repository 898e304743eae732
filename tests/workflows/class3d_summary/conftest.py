"""The summary of jobs, without its figures."""

import pytest

import emhet_dask
from emhet_dask.workflows.stages import class_summary_page


@pytest.fixture
def summarise(client, monkeypatch):
    """Return the command without its figures, which take longer than all the rest."""
    monkeypatch.setattr(class_summary_page, "save_all", lambda *args, **kwargs: None)

    def run(*jobs, output, **options):
        return emhet_dask.class3d_summary(
            [str(job) for job in jobs], output=output, quiet=True, cluster=client, **options
        )

    return run
