"""``emhet demo``: the main commands on simulated maps, and how far they are from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask.analysis.agreement import adjusted_rand_index
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.options import command
from emhet_dask.options.simulate import Demo
from emhet_dask.workflows.blocks import Blocked, blocks
from emhet_dask.workflows.ingest import ingest
from emhet_dask.workflows.landscape import Landscaped, landscape
from emhet_dask.workflows.similarity import Similar, similarity
from emhet_dask.workflows.simulate import simulate_assembly

__all__ = ["Demonstrated", "demo", "planted_blocks"]


@dataclass(frozen=True)
class Demonstrated:
    """What the demonstration found.

    Attributes
    ----------
    folder : Path
    landscape : Landscaped
    similarity : Similar
    blocks : Blocked
    n_true_states : int
    adjusted_rand_index : float
        Of the states found against those planted; 1 is perfect, 0 is chance.
    similarity_adjusted_rand_index : float
        Of the clusters of the similarity matrix.
    n_true_blocks : int
        Subunits that come and go; those that always do so together are one.
    blocks_adjusted_rand_index : float
        Of the voxels that are in a block found and in one that was planted.
    blocks_assigned : float
        Share of the voxels of planted blocks that are in a block found.
    """

    folder: Path
    landscape: Landscaped
    similarity: Similar
    blocks: Blocked
    n_true_states: int
    adjusted_rand_index: float
    similarity_adjusted_rand_index: float
    n_true_blocks: int
    blocks_adjusted_rand_index: float
    blocks_assigned: float

    def describe(self) -> str:
        """Return it in words."""
        return (
            f"{self.landscape.describe()}\n"
            f"Against the truth: {self.landscape.n_clusters} states found, {self.n_true_states} "
            f"planted; adjusted Rand index {self.adjusted_rand_index:.3f} (1 is perfect).\n"
            f"All pairs of maps: {len(self.similarity.clusters)} clusters, adjusted Rand index "
            f"{self.similarity_adjusted_rand_index:.3f}.\n"
            f"Report: {self.similarity.folder / 'report.html'}\n"
            f"Blocks: {self.blocks.describe()}\n"
            f"Against the truth: {self.blocks.n_blocks} blocks found, {self.n_true_blocks} "
            f"planted; {self.blocks_assigned:.0%} of their voxels are in a block, adjusted Rand "
            f"index {self.blocks_adjusted_rand_index:.3f}."
        )


@command(Demo)
def demo(options: Demo) -> Demonstrated:
    """Simulate maps, ingest them, find states and blocks, compare all pairs, and tell the truth.

    Returns
    -------
    Demonstrated
        Below the folder: ``maps/``, ``ensemble.zarr``, ``landscape/``, ``similarity/`` and
        ``blocks/``.
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
    parts = blocks(store, output=str(folder / "blocks"), seed=options.seed, **shared)
    truth = simulated.truth["state"]
    planted = planted_blocks(folder / "maps" / "truth_blocks.mrc", simulated.truth)
    judged = planted > 0
    both = judged & (parts.labels > 0)
    return Demonstrated(
        folder=folder,
        landscape=found,
        similarity=pairs,
        blocks=parts,
        n_true_states=int(truth.nunique()),
        adjusted_rand_index=adjusted_rand_index(truth, found.labels),
        similarity_adjusted_rand_index=adjusted_rand_index(truth, pairs.labels),
        n_true_blocks=len(np.unique(planted[judged])),
        blocks_adjusted_rand_index=adjusted_rand_index(planted[both], parts.labels[both])
        if both.any()
        else float("nan"),
        blocks_assigned=float(both.sum() / judged.sum()),
    )


def planted_blocks(labels_map: str | Path, truth: pd.DataFrame) -> np.ndarray:
    """Return the block of each voxel of a simulated assembly, as it can be known.

    Parameters
    ----------
    labels_map : path
        ``truth_blocks.mrc``: the subunit of each voxel.
    truth : pandas.DataFrame
        ``truth.csv``: a column ``subunit_001``, … for each subunit.

    Returns
    -------
    ndarray of int (z, y, x)
        0 where there is no subunit, or one that is always (or never) present. Subunits that are
        present in the same maps bear the number of the first.
    """
    subunits = read_volume(read_header(labels_map)).astype(int)
    present = truth.filter(like="subunit_").to_numpy()
    _, first, kind = np.unique(present, axis=1, return_index=True, return_inverse=True)
    number = np.where(np.ptp(present, axis=0) > 0, first[kind.reshape(-1)] + 1, 0)
    return np.concatenate([[0], number])[subunits]
