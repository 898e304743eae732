"""Small untrained models of every kind that is decoded, made by cryoDRGN itself."""

import hashlib

import pytest


@pytest.fixture(scope="session")
def torch():
    pytest.importorskip("cryodrgn", reason="cryoDRGN is not installed (extra cryodrgn)")
    return pytest.importorskip("torch")


@pytest.fixture
def make_model(torch, tmp_path):
    """Return a function that makes a model's configuration and weights."""
    from cryodrgn.models import HetOnlyVAE

    from emhet_dask.decoders import CryodrgnModel

    def make(*, domain="fourier", pe_type="gaussian", activation="relu", norm=(0.0, 30.0), D=17):
        config = {
            "lattice_args": {"D": D, "extent": 0.5, "ignore_DC": True},
            "dataset_args": {"norm": list(norm)},
            "model_args": {
                "activation": activation,
                "domain": domain,
                "enc_mask": D // 2,
                "encode_mode": "resid",
                "feat_sigma": 0.5,
                "pdim": 24,
                "pe_dim": None,
                "pe_type": pe_type,
                "players": 2,
                "qdim": 8,
                "qlayers": 1,
                "zdim": 3,
            },
        }
        torch.manual_seed(5)
        whole, lattice = HetOnlyVAE.load(config, None)
        weights = tmp_path / "weights.1.pkl"
        torch.save({"model_state_dict": whole.state_dict()}, weights)
        whole.eval()
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        return CryodrgnModel(config, str(weights), digest), whole.decoder, lattice

    return make
