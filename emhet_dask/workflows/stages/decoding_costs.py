"""What tasks take that decode volumes with a trained model: upper bounds, as in `costs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emhet_dask.ensemble.layout import Layout
from emhet_dask.runtime import Work

__all__ = ["Network", "decode_work", "scores_work"]

# PyTorch's build for the processor and cryoDRGN: 220 MiB were measured.
_TORCH_BYTES = 256 << 20
# The first layer of a network is kept up to this size, and coefficients are decoded in batches
# (`emhet_dask.decoders`).
_KEPT_LAYER_BYTES = 256 << 20
_BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class Network:
    """What of a model decides how much memory it takes.

    Attributes
    ----------
    weights_bytes : int
        Size of its file.
    width : int or None
        Units of a layer; None where the configuration does not say.
    """

    weights_bytes: int
    width: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], weights_bytes: int) -> Network:
        """Return that of a run of cryoDRGN, from its configuration."""
        arguments = config.get("model_args")
        known = arguments if isinstance(arguments, Mapping) else {}
        width = known.get("pdim", known.get("dim"))
        return cls(weights_bytes, width if isinstance(width, int) else None)

    def held_bytes(self, box: int) -> int:
        """Return what a loaded decoder takes between tasks: weights, coordinates, first layer."""
        # Weights as read and as used; coordinates as integers and as numbers, phases, places.
        return _TORCH_BYTES + 3 * self.weights_bytes + 64 * box**3 + self._kept_bytes(box)

    def task_bytes(self, box: int, *, volumes: int) -> int:
        """Return what decoding some volumes takes besides, and making the decoder at first."""
        volume = 4 * box**3
        batch = min(max(_BATCH_BYTES, volume), volumes * volume)
        # Outputs, their sums and differences, coefficients; the layer in pieces before it is one.
        return max(4 * batch, self._kept_bytes(box)) + 8 * volume

    def _kept_bytes(self, box: int) -> int:
        whole = _KEPT_LAYER_BYTES if self.width is None else 4 * self.width * box**3
        return min(whole, _KEPT_LAYER_BYTES)


def decode_work(layout: Layout, *, network: Network, tasks: int, volumes: int) -> Work:
    """Decode volumes into shards."""
    chunk = layout.volumes_per_chunk * layout.volume_bytes
    return Work(
        "decode",
        tasks,
        network.weights_bytes,
        volumes * layout.volume_bytes,
        network.task_bytes(layout.box, volumes=layout.volumes_per_shard) + 2 * chunk,
        held_bytes=network.held_bytes(layout.box),
        remedy="--box (smaller)",
    )


def scores_work(
    *,
    stage: str,
    box: int,
    n_components: int,
    network: Network,
    particles: int,
    tasks: int,
) -> Work:
    """Decode particles and project them on components."""
    # Vectors of voxels, and their coefficients in Fourier space.
    read_outs = 2 * (n_components + 1) * 4 * box**3
    return Work(
        stage,
        tasks,
        network.weights_bytes,
        4 * particles * n_components,
        network.task_bytes(box, volumes=-(-particles // tasks)),
        # Those of voxels alone may be there too, or others as they are made.
        held_bytes=network.held_bytes(box) + 2 * read_outs,
        remedy="a landscape with fewer components",
    )
