"""How well the default options find planted states, on seeds that nothing was tuned on."""

from __future__ import annotations

import json

import pytest
from sklearn.metrics import adjusted_rand_score

from emhet_dask.workflows.ingest import ingest
from emhet_dask.workflows.landscape import landscape
from emhet_dask.workflows.simulate import simulate_assembly, simulate_transition

CASES = {
    "assembly, SNR 8": (simulate_assembly, {"snr": 8.0, "n": 500}, True),
    "assembly, many states, SNR 0.3": (
        simulate_assembly,
        {"snr": 0.3, "n": 1000, "subunits": 10},
        True,
    ),
    "transition, three basins": (simulate_transition, {"snr": 8.0, "n": 500, "basins": 3}, True),
    "transition, uniform": (simulate_transition, {"snr": 8.0, "n": 500}, False),
    "transition, uniform, SNR 1": (simulate_transition, {"snr": 1.0, "n": 500}, False),
}


@pytest.mark.parametrize("case", CASES)
def test_states_with_default_options(benchmark, report, scratch, full, case):
    simulate, options, separate = CASES[case]
    seeds = range(101, 106) if full else range(101, 102)
    found, said, states = [], [], []

    def ours():
        for seed in seeds:
            folder = scratch / case.replace(" ", "_").replace(",", "") / str(seed)
            small = {} if full else {"n": 60, "box": 32, "apix": 6.0, "resolution": 24.0}
            made = simulate(
                output=str(folder / "maps"), seed=seed, quiet=True, **{**options, **small}
            )
            store = str(folder / "e.zarr")
            ingest([str(folder / "maps" / "vol_*.mrc")], output=store, quiet=True)
            result = landscape(store, output=str(folder / "out"), quiet=True)
            evidence = json.loads((folder / "out" / "clusters" / "evidence.json").read_text())
            truth = made.truth["state"]
            found.append(adjusted_rand_score(truth, result.labels))
            said.append(evidence["separate_states"])
            states.append((int(truth.nunique()), evidence["n_clusters"]))

    benchmark.pedantic(ours, rounds=1)
    assert len(found) == len(seeds)
    report(
        worst_ari=min(found),
        states_true_found=str(states),
        said_separate=f"{sum(said)} of {len(said)}, expected {'all' if separate else 'none'}",
    )
