"""Decoders of cryoDRGN runs, built by cryoDRGN itself and evaluated coordinate by coordinate."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emhet_dask.decoders.halfspace import HalfSpace, is_first_of_pair, mirrored
from emhet_dask.errors import InputError, need

if TYPE_CHECKING:
    import torch

    from emhet_dask.decoders.network import CoordinateNetwork

__all__ = ["CryodrgnDecoder", "CryodrgnModel"]

_SUPPORTED = "expected the run of cryodrgn train_vae or train_dec with a positional encoding"
_BATCH_BYTES = 64 << 20
_loaded: dict[str, CryodrgnDecoder] = {}
_loading = threading.Lock()


@dataclass(frozen=True)
class CryodrgnModel:
    """Which decoder of which run, and what it is to decode.

    Attributes
    ----------
    config : mapping
        Of ``config.yaml``: ``lattice_args``, ``model_args``, ``dataset_args``.
    weights : str
        Path of ``weights.N.pkl``, as workers see it.
    weights_sha256 : str
        Of that file; a worker that finds another refuses.
    box : int, optional
        Voxels a side, even; by default as trained. A smaller box leaves high frequencies out.
    flip : bool
        Mirror the volumes (their z axis), for the other hand.
    device : str
        ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    """

    config: Mapping[str, Any]
    weights: str
    weights_sha256: str
    box: int | None = None
    flip: bool = False
    device: str = "auto"

    def load(self) -> CryodrgnDecoder:
        """Return the decoder; loaded once per process.

        Raises
        ------
        InputError
            When cryoDRGN is not installed, the run is of another kind, its weights are not what
            they were, or the box is impossible.
        """
        key = repr(self)
        with _loading:
            if key not in _loaded:
                _loaded[key] = CryodrgnDecoder(self)
            return _loaded[key]


class CryodrgnDecoder:
    """A cryoDRGN decoder in memory; see `emhet_dask.decoders.protocol.Decoder`.

    cryoDRGN adds the mean of its images to all coefficients, which is a point in the middle of the
    box. It is 0 unless the run was given another; then it is in volumes and in the coefficients
    that are decoded, and missing in Parseval's sum over the others.

    Parameters
    ----------
    model : CryodrgnModel
    """

    def __init__(self, model: CryodrgnModel) -> None:
        network, lattice = _build(model)
        trained = lattice.D - 1
        self.box = trained if model.box is None else model.box
        if self.box % 2 or not 2 <= self.box <= trained:
            raise InputError(
                f"--box: got {self.box}, expected an even number up to the {trained} voxels that "
                "the model was trained on"
            )
        self.n_latent = int(network.zdim)
        self._network = network
        self._building = threading.Lock()
        self._read_outs: dict[bytes, _ReadOut] = {}
        self._flip = model.flip
        self._mean, self._scale = _norm(model)
        self._points, grid = _grid(lattice, self.box, sphere=_is_fourier(network))
        grid = grid[is_first_of_pair(grid, self.box)]
        self._half = HalfSpace(_flipped(grid, self.box) if model.flip else grid, self.box)
        self._grid = grid
        self.coordinates = self._half.coordinates
        self.multiplicity = self._half.multiplicity

    def fourier(
        self, latents: NDArray[np.floating], rows: NDArray[np.intp] | None = None
    ) -> NDArray[np.complex64]:
        """Decode coefficients; see `emhet_dask.decoders.protocol.Decoder.fourier`."""
        return self._read_out(rows)(self._checked(latents))

    def volumes(self, latents: NDArray[np.floating]) -> Iterator[NDArray[np.float32]]:
        """Decode volumes; see `emhet_dask.decoders.protocol.Decoder.volumes`."""
        latents, read_out = self._checked(latents), self._read_out(None)
        places, middle = self._half.places, [self.box // 2] * 3
        if self._flip:
            middle[0] = self.box - 1 - middle[0]
        most = max(1, _BATCH_BYTES // (8 * len(self.coordinates)))
        for start in range(0, len(latents), most):
            for coefficients in read_out(latents[start : start + most]):
                volume = self._half.volume(coefficients - read_out.added, places)
                volume[tuple(middle)] += self._mean
                yield volume

    def _read_out(self, rows: NDArray[np.intp] | None) -> _ReadOut:
        """Return what decodes some coordinates, or all; the last that was asked for is kept."""
        chosen = np.arange(len(self._grid)) if rows is None else np.asarray(rows, dtype=np.intp)
        key = b"" if rows is None else chosen.tobytes()
        with self._building:  # threads that begin together need it once
            if key not in self._read_outs:
                self._read_outs = {key: self._build_read_out(chosen)}
            return self._read_outs[key]

    def _build_read_out(self, rows: NDArray[np.intp]) -> _ReadOut:
        from emhet_dask.decoders.network import CoordinateNetwork  # noqa: PLC0415 - brings torch

        grid, box = self._grid[rows], self.box
        # cryoDRGN puts the origin in the middle of the box, the Fourier transform at its corner.
        phase = np.where(grid.sum(axis=1) % 2, -1.0, 1.0).astype(np.complex64)
        if self._flip:
            phase = phase * np.exp(-2j * np.pi * grid[:, 0] / box).astype(np.complex64)
        factor = (self._scale * phase).astype(np.complex64)
        added = (self._mean * phase).astype(np.complex64)
        alone = (mirrored(grid, box) == grid).all(axis=1)
        if _is_fourier(self._network):
            network = CoordinateNetwork(self._network, self._points(grid))
            return _ReadOut(network, factor, added, alone, hartley=False)
        both = np.concatenate([grid, mirrored(grid, box)])
        network = CoordinateNetwork(self._network, self._points(both))
        return _ReadOut(network, factor, added, alone, hartley=True)

    def _checked(self, latents: NDArray[np.floating]) -> NDArray[np.float32]:
        given = np.asarray(latents, dtype=np.float32)
        if given.ndim != 2 or given.shape[1] != self.n_latent:
            raise InputError(
                f"latents: got an array of {given.shape}, expected rows of {self.n_latent} numbers"
            )
        return given


@dataclass(frozen=True)
class _ReadOut:
    """Coefficients at fixed coordinates, from the outputs of the network."""

    network: CoordinateNetwork
    factor: NDArray[np.complex64]
    added: NDArray[np.complex64]
    alone: NDArray[np.bool_]
    hartley: bool

    def __call__(self, latents: NDArray[np.float32]) -> NDArray[np.complex64]:
        outputs = self.network(latents)
        found = np.empty((len(latents), len(self.factor)), dtype=np.complex64)
        if self.hartley:
            # H(k) = Re F - Im F and H(-k) = Re F + Im F.
            here, there = np.split(outputs[:, :, 0], 2, axis=1)
            found.real, found.imag = (here + there) / 2, (there - here) / 2
        else:
            found.real, found.imag = outputs[:, :, 0], outputs[:, :, 1]
            # Where a coefficient is its own conjugate, cryoDRGN takes its Hartley value.
            found.real[:, self.alone] -= found.imag[:, self.alone]
            found.imag[:, self.alone] = 0
        found *= self.factor
        if self.added.any():
            found += self.added
        return found


def _flipped(grid: NDArray[np.int32], box: int) -> NDArray[np.int32]:
    return np.column_stack([mirrored(grid[:, :1], box), grid[:, 1:]])


def _is_fourier(network: Any) -> bool:
    return type(network).__name__ == "FTPositionalDecoder"


def _norm(model: CryodrgnModel) -> tuple[float, float]:
    try:
        mean, std = (float(value) for value in model.config["dataset_args"]["norm"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "config.yaml: dataset_args.norm is missing or not two numbers; " + _SUPPORTED
        ) from None
    return mean, std


def _grid(lattice: Any, box: int, *, sphere: bool) -> tuple[Any, NDArray[np.int32]]:
    """Return what turns frequencies into cryoDRGN's coordinates, and all frequencies it decodes.

    Its grids have an odd side, of which the last plane is left out; in the Fourier domain it
    leaves out what lies beyond Nyquist too, judged in its own precision.
    """
    import torch  # noqa: PLC0415 - takes seconds

    side = box + 1
    extent = lattice.extent * box / (lattice.D - 1)
    plane = lattice.coords if side == lattice.D else lattice.get_downsample_coords(side)
    heights = np.linspace(-extent, extent, side, endpoint=True, dtype=np.float32)
    device = plane.device

    def points(grid: NDArray[np.int32]) -> torch.Tensor:
        z, y, x = (grid + box // 2).T.astype(np.int64)
        found = plane[torch.as_tensor(y * side + x, device=device)].clone()
        found[:, 2] = torch.as_tensor(heights[z], device=device)
        return found

    frequencies = np.arange(-(box // 2), box // 2, dtype=np.int32)
    layers = []
    for z, height in zip(frequencies, heights, strict=False):
        y, x = (axis.ravel() for axis in np.meshgrid(frequencies, frequencies, indexing="ij"))
        layer = np.stack([np.full_like(x, z), y, x], axis=1)
        if sphere:
            shifted = plane + torch.tensor([0, 0, height], device=device)
            inside = (shifted.pow(2).sum(dim=1) <= extent**2).cpu().numpy().reshape(side, side)
            layer = layer[inside[:-1, :-1].ravel()]
        layers.append(layer)
    return points, np.concatenate(layers)


def _build(model: CryodrgnModel) -> tuple[Any, Any]:
    """Let cryoDRGN build the network, and fill in the weights without running a file's code."""
    need("torch", extra="cryodrgn", purpose="decoding")
    need("cryodrgn", extra="cryodrgn", purpose="decoding")
    import torch  # noqa: PLC0415 - takes seconds
    from cryodrgn.models import HetOnlyVAE, load_decoder  # noqa: PLC0415

    torch.set_num_threads(1)  # tasks run side by side
    config = dict(model.config)
    arguments = config.get("model_args")
    if not isinstance(arguments, Mapping) or "zdim" not in arguments:
        raise InputError("config.yaml: no model_args with zdim; " + _SUPPORTED)
    if arguments.get("pe_type") == "none" or "data_norm_mean" in config:
        raise InputError("config.yaml: a model without positional encoding; " + _SUPPORTED)
    device = _device(model.device)
    try:
        if "players" in arguments:
            whole, lattice = HetOnlyVAE.load(config, None, device=device)
            network = whole.decoder
        else:
            whole, lattice = load_decoder(config, None, device=device)
            network = whole
    except (KeyError, TypeError, AssertionError, RuntimeError) as error:
        raise InputError(
            f"config.yaml: cryoDRGN cannot build the model ({' '.join(str(error).split())})"
        ) from None
    _fill(whole, model, device)
    network.eval()
    return network, lattice


def _fill(whole: Any, model: CryodrgnModel, device: Any) -> None:
    import torch  # noqa: PLC0415 - takes seconds

    path = Path(model.weights)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read here ({error.strerror})") from None
    if found != model.weights_sha256:
        raise InputError(f"{path}: not the file that it was when the work was planned")
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        state = checkpoint["model_state_dict"]
        whole.load_state_dict(state)
    except Exception as error:  # torch's readers fail in many ways
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not the weights of the model that config.yaml describes ({reason})"
        ) from None


def _device(name: str) -> Any:
    """Return the device of this process; with several GPUs and no choice, one by process."""
    import torch  # noqa: PLC0415 - takes seconds

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    try:
        found = torch.device(name)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise InputError(f"--device: got {name!r}, expected auto, cpu, cuda or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= count:
        raise InputError(f"--device: got {name!r}, but this machine has {count} GPUs; try cpu")
    return torch.device("cuda", os.getpid() % count) if name == "cuda" else found
