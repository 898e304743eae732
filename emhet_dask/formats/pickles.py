"""Arrays out of pickles, without unpickling: no code of the file's choosing is run.

A pickle is a program that calls whatever it names. Here it may name plain containers and the five
functions by which NumPy arrays and numbers are put together, and even those are our own stand-ins:
NumPy's would believe a crafted dtype (an array of pointers, say). Stand-ins are bound methods, so
that the program cannot set attributes on them either.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np

from emhet_dask.errors import InputError

__all__ = ["load_pickle"]

_PLAIN_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c(8|16)|[SU]\d+")
_CONTAINERS = {
    "set": set,
    "frozenset": frozenset,
    "list": list,
    "dict": dict,
    "tuple": tuple,
}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic, np.ndarray)
_MAX_DEPTH = 100
_ZIP = b"PK\x03\x04"


def load_pickle(path: str | Path, *, n: int = 1) -> Any:
    """Load NumPy arrays, numbers, text and plain containers from a pickle.

    Parameters
    ----------
    path : str or Path
        The file.
    n : int
        How many pickles to read, one after the other; cryoDRGN's ``z.N.pkl`` holds two.

    Returns
    -------
    object or list
        The object, or a list of ``n`` objects when ``n`` is above 1.

    Raises
    ------
    InputError
        When the file is absent, damaged, shorter than ``n`` pickles, or asks for anything but
        arrays of numbers and plain containers; the message names what it asked for.
    """
    try:
        with Path(path).open("rb") as file:
            _refuse_archive(file.peek(len(_ZIP)))
            objects = [_resolve(_ArrayUnpickler(file).load(), seen={}) for _ in range(n)]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _RefusedError as refused:
        raise InputError(
            f"{path}: asks for {refused}; only NumPy arrays of numbers and plain containers are "
            "read from pickles, since anything else could run code"
        ) from None
    except Exception as error:  # a damaged pickle can raise whatever its opcodes lead to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a pickle ({reason})") from None
    return objects[0] if n == 1 else objects


class _RefusedError(Exception):
    """The pickle names something that is not allowed."""


def _refuse_archive(start: bytes) -> None:
    if start.startswith(_ZIP):
        raise _RefusedError("a PyTorch archive to be unpacked")


class _DType:
    """Stand-in for ``numpy.dtype``: a plain kind, size and byte order."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise _RefusedError(f"the byte order {state[1]!r}")
        self.order = state[1]

    def array(self, raw: bytes | bytearray, shape: tuple[int, ...], order: str) -> np.ndarray:
        dtype = np.dtype(self.code).newbyteorder(self.order if self.order != "|" else "=")
        if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(raw):
            raise ValueError(f"an array of shape {shape} does not fit {len(raw)} bytes")
        # A copy: writable, aligned, and in native byte order for whoever computes with it.
        return np.frombuffer(raw, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))  # type: ignore[call-overload]


class _Array:
    """Stand-in for an array between its creation and its state; `_resolve` puts in the real one."""

    def __init__(self) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, raw = state
        if isinstance(raw, str):  # Python 2 wrote bytes as text
            raw = raw.encode("latin-1")
        self.value = dtype.array(raw, shape, "F" if is_fortran else "C")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that knows how arrays are put together, and nothing else."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.").replace("__builtin__", "builtins")
        if module == "builtins" and name in _CONTAINERS:
            return _CONTAINERS[name]
        stand_in = {
            ("collections", "OrderedDict"): OrderedDict,
            ("numpy", "ndarray"): None,  # only ever the first argument of _reconstruct
            ("numpy", "dtype"): self._dtype,
            ("numpy._core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy._core.multiarray", "scalar"): self._scalar,
            ("numpy._core.numeric", "_frombuffer"): self._frombuffer,
            ("_codecs", "encode"): self._encode,
            ("builtins", "bytes"): self._no_bytes,
        }
        if (module, name) not in stand_in:
            raise _RefusedError(f"{module}.{name}")
        return stand_in[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("an object kept outside of the file, as torch.save writes")

    def _dtype(self, code: Any, *_: Any) -> _DType:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise _RefusedError(f"an array of dtype {code!r}")
        return _DType(code)

    def _reconstruct(self, *_: Any) -> _Array:
        return _Array()

    def _scalar(self, dtype: _DType, raw: Any) -> Any:
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        return dtype.array(raw, (), "C")[()]

    def _frombuffer(
        self, raw: bytes, dtype: _DType, shape: tuple[int, ...], order: str, *_: Any
    ) -> np.ndarray:
        return dtype.array(raw, shape, "F" if order == "F" else "C")

    def _no_bytes(self) -> bytes:
        return b""  # protocols 0 to 2 write it as a call

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):  # protocol 2 writes bytes so
            raise _RefusedError(f"the codec {encoding!r}")
        return text.encode("latin-1")


def _resolve(value: Any, *, seen: dict[int, Any], depth: int = 0) -> Any:
    """Replace the stand-ins inside containers by arrays.

    ``seen`` keeps what was resolved, so that containers that share members stay cheap.
    """
    if isinstance(value, _PLAIN):
        return value
    if depth > _MAX_DEPTH:
        raise ValueError(f"containers are nested more than {_MAX_DEPTH} deep")
    if id(value) in seen:
        return seen[id(value)]
    resolved: Any
    if isinstance(value, _Array):
        resolved = value.value
    elif isinstance(value, dict):
        resolved = type(value)(
            (
                _resolve(key, seen=seen, depth=depth + 1),
                _resolve(item, seen=seen, depth=depth + 1),
            )
            for key, item in value.items()
        )
    elif isinstance(value, (list, tuple, set, frozenset)):
        resolved = type(value)(_resolve(item, seen=seen, depth=depth + 1) for item in value)
    else:
        raise _RefusedError("an object that is neither an array nor a plain container")
    seen[id(value)] = resolved
    return resolved
