"""How a command begins: its results folder is opened, and the workers that it names are joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from distributed import Client

from emhet_dask.options._common import Run
from emhet_dask.runtime import Progress, ResultsFolder, connect

__all__ = ["Opened", "opened"]


class Opened(NamedTuple):
    """Where a command puts results, where its work runs, and to whom it is told."""

    results: ResultsFolder
    client: Client
    progress: Progress


@contextmanager
def opened(
    options: Run,
    output: str,
    *,
    command: str,
    inputs: Mapping[str, Any],
    recorded: tuple[str, ...],
) -> Iterator[Opened]:
    """Open the results folder of a command, and connect to the workers that it names.

    Parameters
    ----------
    options : Run
    output : str
        Folder, or URL in an object store.
    command : str
        As it is typed, such as ``class3d summary``.
    inputs : mapping
        What results are made from: paths and fingerprints.
    recorded : tuple of str
        Options that ``run.json`` keeps.

    Raises
    ------
    InputError
        When the folder holds results of other settings, or there are no such workers.
    """
    progress = Progress(quiet=options.quiet)
    with (
        ResultsFolder.open(
            output,
            command=command,
            inputs=dict(inputs),
            parameters=options.parameters(*recorded),
            overwrite=options.overwrite,
            progress=progress,
        ) as results,
        connect(options.cluster, memory_limit=options.memory_limit, tls=options.tls) as client,
    ):
        results.client = client
        yield Opened(results, client, progress)
