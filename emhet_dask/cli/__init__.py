"""The command line: a thin face of `emhet_dask.workflows`, made from `emhet_dask.options`."""

from emhet_dask.cli.main import main

__all__ = ["main"]
