"""A cluster within this process that is reached by an address, as one of many nodes is."""

from typing import Any

from distributed import LocalCluster


def loopback_cluster(n_workers: int, *, protocol: str = "tcp://", **options: Any) -> LocalCluster:
    """Return a cluster of workers with one thread each, on free ports of this machine alone."""
    return LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=False,
        protocol=protocol,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        **options,
    )
