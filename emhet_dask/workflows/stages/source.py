"""Where a command's maps come from: a store, or a folder of maps that is ingested on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client

from emhet_dask.ensemble import Ensemble, open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.formats.sources import VolumeSource, check_uniform, find_volumes
from emhet_dask.formats.tables import read_csv, read_names
from emhet_dask.runtime import ResultsFolder, digest, fingerprint_file
from emhet_dask.workflows.ingest import ingest
from emhet_dask.workflows.stages.selection import open_source

__all__ = ["MapFolder", "find_source", "is_store"]


@dataclass(frozen=True)
class MapFolder:
    """Maps that are no ensemble yet.

    Attributes
    ----------
    paths : tuple of str
        As they were given.
    sources : tuple of VolumeSource
    names : str or None
        CSV with their names.
    box : int or None
    apix : float or None
    """

    paths: tuple[str, ...]
    sources: tuple[VolumeSource, ...]
    names: str | None
    box: int | None
    apix: float | None

    @property
    def inputs(self) -> dict[str, Any]:
        """Return what identifies the maps: their files, as they are now."""
        files = sorted({source.header.path for source in self.sources})
        stamps = [
            (file, Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files
        ]
        return {
            "maps": list(self.paths),
            "fingerprint": digest({"files": stamps, "box": self.box, "apix": self.apix}),
            "names": None if self.names is None else fingerprint_file(self.names),
        }

    def ingest(self, results: ResultsFolder, client: Client, *, quiet: bool) -> Ensemble:
        """Run the stage ``ensemble``, or find it done.

        Parameters
        ----------
        results : ResultsFolder
        client : distributed.Client
        quiet : bool

        Returns
        -------
        Ensemble
            In ``ensemble.zarr`` of the results.
        """

        def build(workspace: Path) -> None:
            ingest(
                list(self.paths),
                output=str(workspace / "ensemble.zarr"),
                names=self.names,
                box=self.box,
                apix=self.apix,
                cluster=client,
                quiet=quiet,
            )

        results.stage("ensemble", parameters={}, build=build, resumable=True)
        return open_ensemble(str(results.path("ensemble.zarr")))


def find_source(
    source: Any, *, names: str | None, box: int | None, apix: float | None
) -> Ensemble | MapFolder:
    """Open a store, or look for maps, and judge them before anything is computed.

    Parameters
    ----------
    source : path, sequence of paths or Ensemble
    names : str or None
        CSV with the names of the maps; that of a folder by default.
    box : int or None
        Of maps that are ingested.
    apix : float or None
        As `box`.

    Returns
    -------
    Ensemble or MapFolder

    Raises
    ------
    InputError
        When there is neither, maps are faulty or differ in box or voxel size, or names do not fit.
    """
    if is_store(source):
        given = {"--box": box, "--apix": apix}
        useless = [name for name, value in given.items() if value is not None]
        if useless:
            raise InputError(f"{useless[0]}: {source} is a store, whose maps are ingested already")
        ensemble = open_source(source)
        return ensemble if names is None else _renamed(ensemble, names)
    several = isinstance(source, Sequence) and not isinstance(source, str)
    paths = tuple(str(each) for each in (source if several else [source]))
    sources = tuple(find_volumes(paths))
    check_uniform(sources, apix=apix, box=box)
    names = names or (_names_beside(paths[0]) if len(paths) == 1 else None)
    if names is not None:
        read_names(names, names=[each.name for each in sources])
    return MapFolder(paths, sources, names, box, apix)


def is_store(source: Any) -> bool:
    """Tell whether an argument is an ensemble or a store, finished or not."""
    if isinstance(source, Ensemble):
        return True
    if isinstance(source, Sequence) and not isinstance(source, str):
        return False
    text = str(source)
    return (
        "://" in text or text.rstrip("/").endswith(".zarr") or (Path(text) / "zarr.json").is_file()
    )


def _renamed(ensemble: Ensemble, names: str) -> Ensemble:
    given = read_names(names, names=ensemble.names.tolist())
    dataset = ensemble.dataset.assign(name=("volume", given))
    return Ensemble(dataset, digest([ensemble.fingerprint, given]), ensemble.path)


def _names_beside(path: str) -> str | None:
    """Return the one CSV in a folder of maps that holds names, if there is one."""
    if not Path(path).is_dir():
        return None
    tables = sorted(str(each) for each in Path(path).glob("*.csv"))
    named = [table for table in tables if _holds_names(table)]
    if len(named) > 1:
        found = ", ".join(Path(table).name for table in named)
        raise InputError(
            f"{path}: {len(named)} CSV files with names ({found}); say which with --names"
        )
    return named[0] if named else None


def _holds_names(table: str) -> bool:
    try:
        columns = read_csv(table).columns
    except InputError:
        return False  # whatever it is, nobody asked for it
    return "original_filename" in (str(column).strip().lower() for column in columns)
