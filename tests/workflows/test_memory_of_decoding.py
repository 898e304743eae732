"""Plans of memory of what decodes with a model of cryoDRGN are kept, as the kernel measures."""

import pytest

import emhet_dask
from emhet_dask.runtime import connect, state_plan
from emhet_dask.workflows import decode as decode_module
from tests.fake_run import some_latents, write_run
from tests.memory_of_workers import (
    MIB,
    assert_kept,
    forget_peak,
    measurable,
    peak,
    peaks_of_stages,
    undisturbed,
)

LIMIT = 1500 * 10**6
BOX, WIDTH, COUNT = 48, 128, 24


def worker():
    """Start a worker that has loaded no model yet."""
    return connect("local:1", memory_limit=LIMIT)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of an untrained model, whose first layer fills tens of MiB."""
    measurable()
    pytest.importorskip("cryodrgn", reason="cryoDRGN is not installed (extra cryodrgn)")
    torch = pytest.importorskip("torch")
    from cryodrgn.models import HetOnlyVAE

    latents = some_latents(COUNT)
    config = {
        "lattice_args": {"D": BOX + 1, "extent": 0.5, "ignore_DC": True},
        "model_args": {
            "activation": "relu",
            "domain": "hartley",
            "enc_mask": BOX // 2,
            "encode_mode": "resid",
            "feat_sigma": 0.5,
            "pdim": WIDTH,
            "pe_dim": None,
            "pe_type": "gaussian",
            "players": 1,
            "qdim": 16,
            "qlayers": 1,
            "zdim": latents.shape[1],
        },
    }
    folder = write_run(tmp_path_factory.mktemp("model") / "run", latents, **config)
    torch.manual_seed(5)
    whole, _ = HetOnlyVAE.load(config, None)
    torch.save({"model_state_dict": whole.state_dict()}, folder / "weights.3.pkl")
    return folder


@pytest.fixture(scope="module")
def decoded(run, tmp_path_factory):
    """Return a landscape of all volumes of the run, the plan of decoding, and what it took."""
    folder = tmp_path_factory.mktemp("decoded")
    path = str(folder / "e.zarr")
    plans = []
    with pytest.MonkeyPatch.context() as patch, worker() as client:
        patch.setattr(decode_module, "state_plan", lambda *given: plans.append(state_plan(*given)))
        client.run(forget_peak)
        with undisturbed(client):
            emhet_dask.decode(run, 3, output=path, n=COUNT, cluster=client, quiet=True)
        measured = max(client.run(peak).values())
        options = {"n_components": 4, "plot_dim": 2, "mask": "none"}
        emhet_dask.landscape(
            path, output=str(folder / "landscape"), cluster=client, quiet=True, **options
        )
    (plan,) = plans
    return folder / "landscape", plan.peak_bytes_per_worker, measured


@pytest.mark.slow
def test_decode(decoded):
    _, planned, measured = decoded
    print("decode", measured // MIB, planned // MIB)
    assert measured < planned <= LIMIT


@pytest.mark.slow
def test_map(run, decoded, monkeypatch, tmp_path):
    with worker() as client:
        peaks = peaks_of_stages(client, monkeypatch)
        with undisturbed(client):
            emhet_dask.map(
                run, 3, landscape=str(decoded[0]), output=str(tmp_path / "out"), cluster=client,
                n_bootstrap=10, quiet=True,
            )  # fmt: skip
    planned = {"read_outs", "check", "scores"}
    assert_kept(tmp_path / "out", peaks, planned=planned, limit=LIMIT)
