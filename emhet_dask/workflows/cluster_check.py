"""``emhet cluster check``: whether a cluster is fit for work."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from emhet_dask.errors import InputError
from emhet_dask.options import command
from emhet_dask.options.cluster_check import ClusterCheck
from emhet_dask.runtime import Progress, connect, format_bytes, versions
from emhet_dask.runtime.probes import (
    PACKAGES,
    ask_workers,
    disk_rate,
    network_rates,
    see_folder,
)

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Fitness", "cluster_check"]

# Rates are measured on so many workers, one after the other.
SAMPLED_WORKERS = 8
# Files' times decide what is newer; network file systems agree to about this.
CLOCK_SKEW_SECONDS = 2.0
# A store of 10^5 maps is some 100 GB: below this, reading it takes longer than computing.
SLOW_BYTES_PER_SECOND = 10e6
# Plans refuse what needs more than a worker has; few fit into less.
LEAST_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class Fitness:
    """What a check found.

    Attributes
    ----------
    facts : dict
        As printed with ``--json``: ``workers`` (a list of what each is), ``nodes``,
        ``rates_bytes_per_second``, ``problems``, ``warnings``.
    as_json : bool
        Describe it in JSON.
    """

    facts: dict[str, Any]
    as_json: bool = False

    @property
    def problems(self) -> list[str]:
        """Return what must be mended, a line each."""
        return list(self.facts["problems"])

    @property
    def warnings(self) -> list[str]:
        """Return what may be meant so, a line each."""
        return list(self.facts["warnings"])

    @property
    def failed(self) -> bool:
        """Return whether something must be mended."""
        return bool(self.problems)

    def describe(self) -> str:
        """Return a table, and a line per problem and warning."""
        if self.as_json:
            return json.dumps(self.facts, indent=2)
        lines = [*_table(self.facts["workers"]), "", *_rate_lines(self.facts)]
        lines += [f"problem: {text}" for text in self.problems]
        lines += [f"warning: {text}" for text in self.warnings]
        if not self.failed:
            lines.append("fit for work")
        return "\n".join(lines)


@command(ClusterCheck)
def cluster_check(options: ClusterCheck) -> Fitness:
    """Start or find a cluster, run a small job on every worker, and say whether it is fit for work.

    Returns
    -------
    Fitness

    Raises
    ------
    InputError
        When the cluster cannot be started or found, its workers do not come, or the folder is not
        there or cannot be written to from here.
    """
    folder = Path(options.folder).absolute()
    if not folder.is_dir():
        raise InputError(f"--folder {options.folder}: no such folder")
    progress = Progress(quiet=options.quiet)
    with connect(options.spec, memory_limit=options.memory_limit, tls=options.tls) as client:
        _wait(client, options, progress)
        with progress.task("check", total=3, unit="steps") as task:
            workers = ask_workers(client)
            unseen = see_folder(client, folder)
            task.update(1)
            addresses = sorted(workers)[:: max(1, len(workers) // SAMPLED_WORKERS)]
            ring = list(zip(addresses, addresses[1:] + addresses[:1], strict=True))
            # Between threads of this process nothing is sent.
            sent = [pair for pair in ring if not pair[0].startswith("inproc://")]
            network = network_rates(client, sent[:SAMPLED_WORKERS])
            task.update(1)
            seen = [address for address, _ in ring if unseen.get(address) is None]
            disk = [disk_rate(client, address, folder) for address in seen[:SAMPLED_WORKERS]]
            task.update(1)
    rates = {
        "client_to_worker": _median(rate for rate, _ in network),
        "worker_to_worker": _median(rate for _, rate in network),
        "disk_write": _median(rate for rate, _ in disk),
        "disk_read": _median(rate for _, rate in disk),
    }
    here = versions(PACKAGES)
    problems = [*_version_problems(workers, here), *_folder_problems(workers, unseen, folder)]
    facts = {
        "workers": [{"address": name, **workers[name]} for name in sorted(workers)],
        "nodes": sorted({facts["node"] for facts in workers.values()}),
        "versions_here": here,
        "folder": str(folder),
        "rates_bytes_per_second": rates,
        "problems": [*problems, *_thread_problems(workers)],
        "warnings": list(_warnings(workers, rates)),
    }
    return Fitness(facts, as_json=options.json)


def _wait(client: Client, options: ClusterCheck, progress: Progress) -> None:
    with progress.task(f"wait for {options.workers} workers"):
        try:
            client.wait_for_workers(options.workers, timeout=options.wait)
        except TimeoutError as error:
            came = len(client.scheduler_info(n_workers=-1)["workers"])
            raise InputError(
                f"--workers: {came} of {options.workers} came within {options.wait:g} s; jobs may "
                "wait in their queue (squeue, qstat), or have ended with an error in their log"
            ) from error


def _median(rates: Iterator[float]) -> float | None:
    known = [rate for rate in rates if not math.isnan(rate)]
    return median(known) if known else None


# --- verdicts -------------------------------------------------------------------------------------


def _version_problems(
    workers: Mapping[str, Mapping[str, Any]], here: Mapping[str, str]
) -> Iterator[str]:
    """Yield a line per package: pickled work and stores are of one version."""
    for name in ("python", *PACKAGES):
        own = here.get(name, "missing")
        others = Counter(facts["versions"][name] for facts in workers.values())
        wrong = {version: count for version, count in others.items() if version != own}
        if wrong:
            found = ", ".join(f"{version} on {count} workers" for version, count in wrong.items())
            yield f"{name} is {own} here, but {found}; install the same everywhere"


def _folder_problems(
    workers: Mapping[str, Mapping[str, Any]], unseen: Mapping[str, str | None], folder: Path
) -> Iterator[str]:
    reasons = {address: reason for address, reason in unseen.items() if reason is not None}
    for reason, count in Counter(reasons.values()).items():
        where = sorted({workers[name]["node"] for name, each in reasons.items() if each == reason})
        yield (
            f"{folder} is not shared with {count} of {len(workers)} workers, on "
            f"{_some(where)}: {reason}; choose one that every node mounts under the same path"
        )


def _thread_problems(workers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    over = [
        facts
        for facts in workers.values()
        if facts["blas_threads"] > 1 and facts["threads"] * facts["blas_threads"] > facts["cores"]
    ]
    if over:
        first = over[0]
        yield (
            f"{len(over)} workers have {first['threads']} threads × {first['blas_threads']} BLAS "
            f"threads on {first['cores']} cores; set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 "
            "where they start"
        )


def _warnings(
    workers: Mapping[str, Mapping[str, Any]], rates: Mapping[str, float | None]
) -> Iterator[str]:
    each = list(workers.values())
    told = [f for f in each if f["blas_threads_before"] > f["blas_threads"]]
    if told:
        yield (
            f"{len(told)} workers began with {told[0]['blas_threads_before']} BLAS threads for "
            f"each of {told[0]['threads']} threads on {told[0]['cores']} cores; set to 1, as every "
            "command does"
        )
    busy = [f for f in each if f["threads"] > f["cores"]]
    if busy:
        yield f"{len(busy)} workers have {busy[0]['threads']} threads on {busy[0]['cores']} cores"
    if unlimited := [f for f in each if not f["memory_bytes"]]:
        yield f"{len(unlimited)} workers have no memory limit; give --memory-limit where they start"
    if small := [f for f in each if f["memory_bytes"] and f["memory_bytes"] < LEAST_MEMORY_BYTES]:
        yield (
            f"{len(small)} workers have {format_bytes(small[0]['memory_bytes'])}; most plans need "
            f"{format_bytes(LEAST_MEMORY_BYTES)}"
        )
    if spilling := [f for f in each if f["spills"]]:
        yield (
            f"{len(spilling)} workers spill to disk; plans keep within memory, so switch "
            "distributed.worker.memory.target and spill off"
        )
    skew = max(f["clock_skew_seconds"] for f in each)
    if skew > CLOCK_SKEW_SECONDS:
        yield f"clocks differ by {skew:.0f} s or more; synchronise them (chrony, ntpd)"
    slow = [n for n, rate in rates.items() if rate is not None and rate < SLOW_BYTES_PER_SECOND]
    for name in slow:
        yield f"{name.replace('_', ' ')}: only {format_bytes(int(rates[name] or 0))}/s"


# --- words ----------------------------------------------------------------------------------------


def _table(workers: list[Mapping[str, Any]]) -> list[str]:
    """Return a row per kind of worker on a node, so that a hundred fit a screen."""
    alike = Counter(
        (
            f["node"],
            f["threads"],
            f["cores"],
            format_bytes(f["memory_bytes"]) if f["memory_bytes"] else "no limit",
            f["blas_threads"],
            "on" if f["spills"] else "off",
            f["versions"]["emhet-dask"],
        )
        for f in workers
    )
    head = ("node", "workers", "threads", "cores", "memory", "BLAS threads", "spilling", "emhet")
    rows = [(node, count, *rest) for (node, *rest), count in sorted(alike.items())]
    cells = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _rate_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    count, nodes = len(facts["workers"]), len(facts["nodes"])
    yield (
        f"{count} {'worker' if count == 1 else 'workers'} on "
        f"{nodes} {'node' if nodes == 1 else 'different nodes'}"
    )
    spelled = {
        "client_to_worker": "network, here to worker",
        "worker_to_worker": "network, worker to worker",
        "disk_write": f"disk, writing to {facts['folder']}",
        "disk_read": "disk, reading from there",
    }
    for name, words in spelled.items():
        rate = facts["rates_bytes_per_second"][name]
        yield f"{words}: {'not measured' if rate is None else f'{format_bytes(int(rate))}/s'}"


def _some(names: list[str], limit: int = 4) -> str:
    rest = f" and {len(names) - limit} more nodes" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
