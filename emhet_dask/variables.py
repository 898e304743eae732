"""Every array that a store or a results file may hold: dimensions, type, unit, meaning.

One registry serves validation, the attributes written beside the data, and the documentation. A
dataset whose array disagrees with its entry is refused, not repaired.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from emhet_dask.errors import InputError

__all__ = ["EDGES", "ENSEMBLE", "OCCUPIED", "RESULTS", "Variable", "check", "describe"]


@dataclass(frozen=True)
class Variable:
    """One named array.

    Attributes
    ----------
    name : str
    dims : tuple of str
        Names of its dimensions, in order.
    kinds : str
        NumPy kind letters that are allowed: ``f`` float, ``i`` integer, ``u`` unsigned integer,
        ``b`` boolean, ``T`` text.
    unit : str
        ``"Å"``, ``"particles"``, …; empty for pure numbers and for densities, whose scale is the
        source program's own.
    meaning : str
        One sentence.
    """

    name: str
    dims: tuple[str, ...]
    kinds: str
    unit: str
    meaning: str

    def attributes(self) -> dict[str, str]:
        """Return what is written beside the data."""
        described = {"long_name": self.meaning}
        if self.unit:
            described["units"] = self.unit
        return described


def _register(*variables: Variable) -> Mapping[str, Variable]:
    return MappingProxyType({variable.name: variable for variable in variables})


_VOLUME = ("volume",)
_PARTICLE = ("particle",)

ENSEMBLE = _register(
    Variable(
        "volumes",
        ("volume", "z", "y", "x"),
        "f",
        "",
        "density, times `scale` where present",
    ),
    Variable("scale", _VOLUME, "f", "", "factor that a half-precision volume is multiplied by"),
    Variable("name", _VOLUME, "TU", "", "shortest path suffix that is unique, without extension"),
    Variable("source", _VOLUME, "TU", "", "file that the volume was read from"),
    Variable("source_index", _VOLUME, "iu", "", "position in a stack, from 0"),
    Variable("source_crc32c", _VOLUME, "iu", "", "checksum of the density as read, float32"),
    Variable("volume_index", _VOLUME, "iu", "", "position of the volume in its store"),
    Variable("weight", _VOLUME, "f", "particles", "particles that the volume stands for"),
    Variable("usable", _VOLUME, "b", "", "false where the file could not be read or made no sense"),
    Variable("minimum", _VOLUME, "f", "", "lowest density"),
    Variable("maximum", _VOLUME, "f", "", "highest density"),
    Variable("mean", _VOLUME, "f", "", "mean density over the box"),
    Variable("std", _VOLUME, "f", "", "standard deviation of the density over the box"),
    Variable("percentile_9999", _VOLUME, "f", "", "99.99th percentile of the density"),
    Variable("latent", ("volume", "latent_dim"), "f", "", "latent it was decoded from"),
    Variable("decoded_particle", _VOLUME, "i", "", "particle (row) whose latent it was decoded at"),
    Variable("particle_volume", _PARTICLE, "i", "", "volume the particle belongs to; -1: none"),
    Variable("particle_index", _PARTICLE, "iu", "", "row in the particle file before any subset"),
    Variable("particle_name", _PARTICLE, "TU", "", "rlnImageName, or uid for cryoSPARC"),
    Variable("particle_copy", _PARTICLE, "iu", "", "rank among particles of the same name"),
    Variable("particle_latent", ("particle", "latent_dim"), "f", "", "latent of the particle"),
)

RESULTS = _register(
    Variable("mask", ("z", "y", "x"), "f", "", "1 inside, 0 outside, between at a soft edge"),
    Variable("occupancy", ("z", "y", "x"), "iu", "volumes", "volumes above the threshold"),
    Variable("matrix", ("volume", "voxel"), "f", "", "density at the voxels inside the mask"),
    Variable("matrix_scale", _VOLUME, "f", "", "factor that a row of `matrix` is multiplied by"),
    Variable("voxel_index", ("voxel",), "iu", "", "position in the flattened box (z, y, x)"),
    Variable("voxel_weight", ("voxel",), "f", "", "mask value at the voxel"),
    Variable("volume_index", _VOLUME, "iu", "", "position of the volume in the ensemble"),
    Variable("factor", _VOLUME, "f", "", "amplitude relative to the mean map, by least squares"),
    Variable("threshold", _VOLUME, "f", "", "density above which a voxel is occupied"),
    Variable(
        "background_correlation", ("lag",), "f", "", "of two background voxels, by their distance"
    ),
    Variable("block", ("z", "y", "x"), "i", "", "block that the voxel belongs to; 0 is none"),
    Variable("block_core", ("z", "y", "x"), "b", "", "in its block before others joined"),
    Variable("mean_map", ("z", "y", "x"), "f", "", "mean density; 0 outside the mask"),
    Variable("block_occupancy", ("volume", "label"), "f", "", "share of the block's voxels"),
    Variable("block_density", ("volume", "label"), "f", "", "mean density of the block's voxels"),
    Variable("block_present", ("volume", "label"), "b", "", "occupied more than its cut"),
    Variable("scores", ("volume", "component"), "f", "", "coordinates on the components"),
    Variable("components", ("component", "voxel"), "f", "", "unit vectors over the masked voxels"),
    Variable("explained_variance", ("component",), "f", "", "variance along each component"),
    Variable(
        "explained_variance_ratio", ("component",), "f", "", "share of the total variance, 0 to 1"
    ),
    Variable("residual", _VOLUME, "f", "", "squared distance from the span of the components"),
    Variable(
        "explained_variance_error", ("component",), "f", "", "how far below the exact value at most"
    ),
    Variable("mean", ("voxel",), "f", "", "mean density inside the mask"),
    Variable("eigenvalues", ("eigen",), "f", "", "all eigenvalues that the method gives"),
    Variable("cluster", _VOLUME, "i", "", "state that the volume belongs to, from 0"),
    Variable("outlier", _VOLUME, "b", "", "true for a volume unlike all others"),
    Variable("outlier_score", _VOLUME, "f", "", "how far from the others; above 1 is an outlier"),
    Variable("linkage", ("merge", "column"), "f", "", "SciPy's linkage matrix"),
    Variable("leaf", _VOLUME, "i", "", "leaf of the tree that the volume belongs to"),
    Variable("n_clusters", ("n_clusters",), "i", "", "candidate number of clusters"),
    Variable("separation", ("n_clusters",), "f", "", "gap of the least separate neighbours"),
    Variable(
        "critical_separation", ("n_clusters",), "f", "", "what pieces of a continuum hardly reach"
    ),
    Variable(
        "convincing_separation", ("n_clusters",), "f", "", "what one gap must reach to convince"
    ),
    Variable(
        "separate_fraction", ("n_clusters",), "f", "", "share of volumes apart from all others"
    ),
    Variable("silhouette", ("n_clusters",), "f", "", "simplified silhouette, -1 to 1"),
    Variable("medoid", ("state",), "iu", "", "volume in the middle of each state"),
    Variable(
        "rows", ("volume", "column"), "f", "", "prepared maps; inner products are similarities"
    ),
    Variable(
        "similarity",
        ("volume", "volume_b"),
        "f",
        "",
        "how alike two maps are, or their distance; stored above the diagonal",
    ),
    Variable(
        "neighbour", ("volume", "rank"), "i", "", "most similar volumes, best first; -1: none"
    ),
    Variable(
        "neighbour_similarity", ("volume", "rank"), "f", "", "similarity to (or distance from) them"
    ),
    Variable("particle_scores", ("particle", "component"), "f", "", "coordinates of particles"),
    Variable("particle_state", _PARTICLE, "i", "", "state of the particle, from 0"),
    Variable("particle_confidence", _PARTICLE, "f", "", "of its state, 0 to 1"),
    Variable("particle_outlier", _PARTICLE, "b", "", "true where no volume of the sketch is near"),
    Variable("particle_decoded", _PARTICLE, "b", "", "decoded, and not predicted from its latent"),
    Variable("sample_particle", ("sample",), "iu", "", "particle (row of the latents)"),
    Variable("read_out", ("read_out_row", "voxel"), "f", "", "products with it place volumes"),
    Variable("score_offset", ("component",), "f", "", "what a score is less than its product"),
    Variable("particle_basin", _PARTICLE, "i", "", "basin of the landscape, from 0; -1: none"),
    Variable("volume_basin", _VOLUME, "i", "", "basin of the landscape, from 0; -1: none"),
    Variable("histogram", ("bin",), "iu", "pairs", "pairs in each bin of similarity or distance"),
    Variable("histogram_edges", ("edge",), "f", "", "ends of the bins"),
    Variable("undefined", _VOLUME, "b", "", "true for a constant map, which is like nothing"),
    Variable("block_neighbour", ("block", "row", "rank"), "i", "", "most similar within a block"),
    Variable("block_similarity", ("block", "row", "rank"), "f", "", "similarity to (from) them"),
    Variable("block_histogram", ("block", "bin"), "iu", "pairs", "pairs of a block in each bin"),
)

_EDGE = ("setting", "tail", "voxel", "rank")
_TILE_EDGE = ("tile", "half", "setting", "tail", "row", "rank")

# Groups of their own, in which other arrays have names that `RESULTS` has too.
OCCUPIED = _register(
    Variable("bits", ("voxel", "byte"), "u", "", "1 where occupied, a bit for each volume"),
    Variable("margin", ("voxel",), "iu", "volumes", "volumes in which the voxel is occupied"),
    Variable("matrix_column", ("voxel",), "iu", "", "column of the voxel in `matrix`"),
    Variable("voxel_index", ("voxel",), "iu", "", "position in the flattened box (z, y, x)"),
    Variable("all_bits", ("level", "column", "byte"), "u", "", "`bits` of all columns of `matrix`"),
    Variable("all_margins", ("level", "column"), "iu", "volumes", "`margin` of all columns"),
    Variable("column_index", ("column",), "iu", "", "`voxel_index` of all columns"),
)

EDGES = _register(
    Variable("neighbour", _EDGE, "i", "", "voxels of the strongest edges, best first; -1: none"),
    Variable("phi", _EDGE, "f", "", "correlation with them; NaN: none"),
    Variable("degree", _EDGE[:3], "i", "", "edges of the voxel, kept or not"),
    Variable("margin", ("voxel",), "iu", "volumes", "volumes in which the voxel is occupied"),
    Variable("alpha", ("setting", "tail"), "f", "", "level of one test"),
    Variable("tile_neighbour", _TILE_EDGE, "i", "", "strongest edges within a tile"),
    Variable("tile_phi", _TILE_EDGE, "f", "", "correlation with them"),
    Variable("tile_degree", _TILE_EDGE[:5], "i", "", "edges within a tile; -1: not written"),
    Variable("p_histogram", ("setting", "tail", "bin"), "i", "pairs", "pairs in bins of p-values"),
    Variable("tile_histogram", ("tile", "setting", "tail", "bin"), "i", "pairs", "those of a tile"),
)


def check(dataset: Mapping[Hashable, Any], registry: Mapping[str, Variable], *, what: str) -> None:
    """Refuse a dataset whose arrays disagree with the registry.

    Parameters
    ----------
    dataset : mapping of name to an array with ``dims`` and ``dtype``
        An `xarray.Dataset`, for instance. Names that the registry does not know are let be.
    registry : mapping
        `ENSEMBLE`, `RESULTS`, ….
    what : str
        The file, for the message.

    Raises
    ------
    InputError
        When the dimensions or the kind of dtype of a registered array differ; all are named.
    """
    problems = list(_disagreements(dataset, registry))
    if problems:
        raise InputError(f"{what}: " + "; ".join(problems))


def _disagreements(
    dataset: Mapping[Hashable, Any], registry: Mapping[str, Variable]
) -> Iterable[str]:
    for name, variable in registry.items():
        if name not in dataset:
            continue
        array = dataset[name]
        if tuple(array.dims) != variable.dims:
            yield f"{name} has dimensions {tuple(array.dims)}, expected {variable.dims}"
        kind = "T" if array.dtype.kind == "O" else array.dtype.kind
        if kind not in variable.kinds:
            yield f"{name} has dtype {array.dtype}, expected one of kinds {variable.kinds!r}"


def describe(dataset: Any, registry: Mapping[str, Variable]) -> Any:
    """Write meaning and unit into the attributes of every registered array of an xarray Dataset.

    Parameters
    ----------
    dataset : xarray.Dataset
    registry : mapping
        `ENSEMBLE`, `RESULTS`, ….

    Returns
    -------
    xarray.Dataset
        The same object, for chaining.
    """
    for name in dataset.variables:
        if name in registry:
            dataset[name].attrs.update(registry[name].attributes())
    return dataset
