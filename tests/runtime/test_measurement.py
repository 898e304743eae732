import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from emhet_dask.runtime.measurement import measure

MIB = 2**20


def test_memory_that_comes_and_goes_is_seen():
    base = psutil.Process().memory_info().rss
    with measure() as found:
        block = np.ones(100 * MIB, np.uint8)
        time.sleep(0.3)
        del block
    assert found.peak_bytes >= base + 95 * MIB
    assert found.seconds >= 0.3
    assert found.worker_peak_bytes is None


def test_children_count():
    base = psutil.Process().memory_info().rss
    code = f"x = b'1' * {80 * MIB}; print('ready', flush=True); import time; time.sleep(1.3)"
    with (
        measure() as found,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child,
    ):
        child.stdout.readline()
    assert found.peak_bytes >= base + 80 * MIB


def test_an_error_passes_and_is_measured_too():
    with pytest.raises(ZeroDivisionError), measure() as found:
        raise ZeroDivisionError
    assert found.peak_bytes > 0
    assert found.seconds > 0


class Scheduler:
    def __init__(self, answers):
        self.answers = iter(answers)

    def scheduler_info(self, n_workers):
        assert n_workers == -1
        memory = next(self.answers, 0)
        if memory is None:
            raise OSError("the scheduler is gone")
        return {"workers": {"a": {"metrics": {"memory": memory}}, "b": {"metrics": {}}}}


def test_the_largest_worker_is_asked_for_and_a_lost_scheduler_is_not_our_concern():
    with measure(Scheduler([300, 200])) as found:
        pass
    assert found.worker_peak_bytes == 300
    with measure(Scheduler([None, None])) as found:
        pass
    assert found.worker_peak_bytes is None
