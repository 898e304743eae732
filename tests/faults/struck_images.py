"""Run a command on particle images whose workers are struck, in each half of an iteration too.

Run by tests as ``python struck_images.py SIGNAL TIMES COMMAND…``; see struck.py.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What an iteration is made of: maximisation, expectation, and the search of poses.
PARTS = ("add_up", "judge", "find_consensus")


def make_small(set_attribute: Callable[[Any, str, Any], None]) -> None:
    """Cut some hundred images into several blocks whatever the radius; few rounds, no pictures."""
    from emhet_dask.workflows import class3d_run, reconstruct
    from emhet_dask.workflows.stages import class_run_blocks, class_run_global, class_run_poses

    set_attribute(class_run_poses, "_ROUNDS", 1)
    set_attribute(class_run_global, "_ROUNDS", 2)
    set_attribute(class_run_global, "_ITERATIONS", 1)
    set_attribute(class_run_blocks, "_WORTH_A_TASK", 1)
    set_attribute(class3d_run, "run_report_stage", lambda *_, **__: "")
    set_attribute(reconstruct, "reconstruct_report_stage", lambda *_, **__: None)


def name_parts(struck: list[Any]) -> None:
    """Have the parts of an iteration struck each for itself, once."""
    from emhet_dask.analysis import global_search, local_search
    from emhet_dask.workflows.stages import class_run_global, class_run_iterations, class_run_poses

    places = [(class_run_iterations, name) for name in PARTS]
    places += [(class_run_poses, local_search.search_poses.__name__)]
    places += [(class_run_global, global_search.search_everywhere.__name__)]
    for module, name in places:
        setattr(module, name, _named(getattr(module, name), name, struck))


def _named(function: Callable[..., Any], name: str, struck: list[Any]) -> Callable[..., Any]:
    def named(*arguments: Any, **options: Any) -> Any:
        if not struck:  # threads of this process
            return function(*arguments, **options)
        stage = struck[-1].stage
        struck[-1].stage = name
        try:
            return function(*arguments, **options)
        finally:
            struck[-1].stage = stage

    return named


if __name__ == "__main__":
    # Not above: workers import this file again.
    sys.path.append(str(Path(__file__).parents[2]))
    from emhet_dask.cli.main import main
    from tests.faults.struck import strike

    make_small(setattr)
    made = strike(signal.Signals[sys.argv[1]], int(sys.argv[2]))
    name_parts(made)
    try:
        main(sys.argv[3:])
    finally:
        print(json.dumps([each for cluster in made for each in cluster.done]))
