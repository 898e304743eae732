"""What every report ends with: what was asked for, what it took, and what it was made from."""

from __future__ import annotations

from pathlib import Path

from emhet_dask.runtime import format_bytes, read_run

__all__ = ["provenance"]


def provenance(folder: Path) -> dict[str, dict[str, object]]:
    """Return parameters, time and memory of the stages, versions and input of a run.

    Parameters
    ----------
    folder : Path
        Results with all stages but the report finished.
    """
    run = read_run(folder)
    return {
        "Parameters": {
            name: value for name, value in run.parameters.items() if value not in (None, [], ())
        },
        "Time and memory of the stages": {
            name: f"{record.seconds:.1f} s, {format_bytes(record.peak_memory_bytes)}"
            for name, record in run.stages.items()
        },
        "Versions": dict(run.versions),
        "Input": dict(run.inputs),
    }
