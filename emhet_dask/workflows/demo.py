"""``emhet demo``: the main job on simulated maps, and how far it is from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emhet_dask.analysis.agreement import adjusted_rand_index
from emhet_dask.options import command
from emhet_dask.options.simulate import Demo
from emhet_dask.workflows.ingest import ingest
from emhet_dask.workflows.landscape import Landscaped, landscape
from emhet_dask.workflows.similarity import Similar, similarity
from emhet_dask.workflows.simulate import simulate_assembly

__all__ = ["Demonstrated", "demo"]


@dataclass(frozen=True)
class Demonstrated:
    """What the demonstration found.

    Attributes
    ----------
    folder : Path
    landscape : Landscaped
    similarity : Similar
    n_true_states : int
    adjusted_rand_index : float
        Of the states found against those planted; 1 is perfect, 0 is chance.
    similarity_adjusted_rand_index : float
        Of the clusters of the similarity matrix.
    """

    folder: Path
    landscape: Landscaped
    similarity: Similar
    n_true_states: int
    adjusted_rand_index: float
    similarity_adjusted_rand_index: float

    def describe(self) -> str:
        """Return it in words."""
        return (
            f"{self.landscape.describe()}\n"
            f"Against the truth: {self.landscape.n_clusters} states found, {self.n_true_states} "
            f"planted; adjusted Rand index {self.adjusted_rand_index:.3f} (1 is perfect).\n"
            f"All pairs of maps: {len(self.similarity.clusters)} clusters, adjusted Rand index "
            f"{self.similarity_adjusted_rand_index:.3f}.\n"
            f"Report: {self.similarity.folder / 'report.html'}"
        )


@command(Demo)
def demo(options: Demo) -> Demonstrated:
    """Simulate maps, ingest them, find their states, compare all pairs, and tell the truth.

    Returns
    -------
    Demonstrated
        Below the folder: ``maps/``, ``ensemble.zarr``, ``landscape/`` and ``similarity/``.
    """
    folder = Path(options.output)
    shared: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("cluster", "memory_limit", "tls", "overwrite", "quiet")
    }
    simulated = simulate_assembly(
        output=str(folder / "maps"), n=options.n, seed=options.seed, **shared
    )
    store = str(folder / "ensemble.zarr")
    ingest([str(folder / "maps" / "vol_*.mrc")], output=store, **shared)
    found = landscape(store, output=str(folder / "landscape"), seed=options.seed, **shared)
    pairs = similarity(store, output=str(folder / "similarity"), seed=options.seed, **shared)
    truth = simulated.truth["state"]
    return Demonstrated(
        folder=folder,
        landscape=found,
        similarity=pairs,
        n_true_states=int(truth.nunique()),
        adjusted_rand_index=adjusted_rand_index(truth, found.labels),
        similarity_adjusted_rand_index=adjusted_rand_index(truth, pairs.labels),
    )
