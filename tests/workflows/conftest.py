"""One cluster for the tests of a file, and workflows that are killed between shards."""

import signal
import subprocess
import sys
import time

import pytest

from emhet_dask.runtime import connect


# Starting one takes longer than most tests. Not for the session: while it lives, it is what
# dask.compute of other tests would use.
@pytest.fixture(scope="module")
def client():
    with connect("local") as client:
        yield client


SHARD_BY_SHARD = """
import sys, time
import emhet_dask
from emhet_dask.ensemble import layout
from emhet_dask.workflows import {workflow} as workflow

layout._SMALLEST_SHARD_BYTES = 1 << 16
layout._CHUNK_BYTES = 1 << 14
written = workflow.write_shard

def slowly(*arguments):
    time.sleep({delay})
    written(*arguments)
    print("shard", flush=True)

workflow.write_shard = slowly
emhet_dask.{workflow}({source!r}, output={output!r}, quiet=True, **{options!r})
"""


class ShardByShard:
    """A workflow that makes a store, in a process of its own that tells of each shard."""

    def __init__(self, workflow, source, output, **options):
        self.output = output
        self._told = {
            "workflow": workflow,
            "source": source,
            "output": str(output),
            "options": options,
        }

    def kill(self, *, after):
        """Start it, and kill it when the store is begun and so many shards are written."""
        process = self._start(delay=0.2)
        for _ in range(after):
            process.stdout.readline()
        while not (self.output / "zarr.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def finish(self):
        """Run it to its end; return how many shards it wrote."""
        process = self._start(delay=0)
        written = process.communicate()[0].count("shard")
        assert process.returncode == 0
        return written

    def _start(self, *, delay):
        code = SHARD_BY_SHARD.format(**self._told, delay=delay)
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def shard_by_shard():
    return ShardByShard
