"""``python -m emhet_dask``: the same as the command ``emhet``."""

from emhet_dask.cli import main

main()
