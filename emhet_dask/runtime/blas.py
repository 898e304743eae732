"""One BLAS thread per task: here, in new processes, and in workers that somebody else started.

With one per core in each of as many tasks, cores would be shared between their square; and the last
bits of a product would depend on the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import WorkerPlugin

__all__ = ["BLAS_VARIABLES", "OneBlasThread", "blas_threads", "one_blas_thread"]

BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# Dask's nanny leaves these in the environment of this process.
NANNY_VARIABLES = ("PYTHONHASHSEED", "MALLOC_TRIM_THRESHOLD_")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread, in libraries loaded now and later, and in new processes."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    _load()
    before = {name: os.environ.get(name) for name in (*BLAS_VARIABLES, *NANNY_VARIABLES)}
    os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
    try:
        with threadpool_limits(1):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class OneBlasThread(WorkerPlugin):
    """Does the same to a worker, for as long as it lives.

    Attributes
    ----------
    before : int
        Threads that its BLAS had.
    """

    name = "emhet-one-blas-thread"
    idempotent = True
    before = 1

    def setup(self, worker: Any) -> None:
        """Set it, on every worker that is there or will come."""
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        del worker
        self.before = blas_threads()
        os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
        threadpool_limits(1)


def blas_threads() -> int:
    """Return how many threads BLAS and OpenMP take in this process, the most of any library."""
    from threadpoolctl import threadpool_info  # noqa: PLC0415

    _load()
    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def _load() -> None:
    """Load what brings a BLAS, which can be told only once it is loaded."""
    import numpy as np  # noqa: F401, PLC0415
    import scipy.linalg  # noqa: F401, PLC0415
