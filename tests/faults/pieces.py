"""Small ensembles in as many pieces as large ones have, models that are formulas, no pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emhet_dask.ensemble import layout, matrix, pairs
from emhet_dask.workflows import decode
from emhet_dask.workflows import map as mapping
from emhet_dask.workflows.stages import block_report, pair_pictures, pictures, voxel_pairs
from tests.faults import slow
from tests.smooth_run import BOX, smooth_decoder_to_map

SMALL = (
    (layout, "_CHUNK_BYTES", 4 * BOX**3 * 4),
    (layout, "_SMALLEST_SHARD_BYTES", 4 * BOX**3 * 8),
    (matrix, "_SMALLEST_BAND_BYTES", 1 << 14),
    (pairs, "_SIDE_STEP", 16),
    (pairs, "_SMALLEST_SIDE", 16),
    (voxel_pairs, "tile_side", lambda *_, **__: 256),
    (decode, "_decoder", slow.decoder),
    (mapping, "_decoder", smooth_decoder_to_map),
    (mapping, "_finish", lambda *_: None),
    (pictures, "save_all", lambda *_, **__: None),
    (pair_pictures, "save_all", lambda *_, **__: None),
    (block_report, "save_all", lambda *_, **__: None),
)


def make_small(set_attribute: Callable[[Any, str, Any], None]) -> None:
    """Cut some hundred maps into several shards, bands and blocks; decode without a network."""
    for change in SMALL:
        set_attribute(*change)
