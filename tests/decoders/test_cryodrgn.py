"""Volumes and coefficients against cryoDRGN's own evaluation of the same network."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from emhet_dask.errors import InputError

LATENTS = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
KINDS = [
    {},
    {"domain": "hartley"},
    {"pe_type": "geom_lowf"},
    {"pe_type": "linear_lowf", "activation": "leaky_relu"},
    {"norm": (0.7, 30.0)},
]


def theirs(decoder, lattice, norm, latent, box=None):
    """Return the volume as ``cryodrgn eval_vol`` makes it."""
    if box is None:
        volume = decoder.eval_volume(lattice.coords, lattice.D, lattice.extent, norm, latent)
    else:
        extent = lattice.extent * box / (lattice.D - 1)
        coords = lattice.get_downsample_coords(box + 1)
        volume = decoder.eval_volume(coords, box + 1, extent, norm, latent)
    return volume.numpy()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("box", [None, 10])
def test_volumes_are_cryodrgns(make_model, kind, box):
    model, decoder, lattice = make_model(**kind)
    norm = model.config["dataset_args"]["norm"]
    ours = list(replace(model, box=box).load().volumes(LATENTS))
    for latent, volume in zip(LATENTS, ours, strict=True):
        expected = theirs(decoder, lattice, norm, latent, box)
        np.testing.assert_allclose(volume, expected, rtol=0, atol=1e-4 * expected.std())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kind", [{}, {"domain": "hartley"}], ids=str)
def test_coefficients_are_those_of_the_volumes(make_model, kind, flip):
    model, decoder, lattice = make_model(**kind)
    loaded = replace(model, flip=flip).load()
    volumes = np.stack(list(loaded.volumes(LATENTS)))
    expected = theirs(decoder, lattice, (0.0, 30.0), LATENTS[0])
    expected = expected[::-1] if flip else expected
    np.testing.assert_allclose(volumes[0], expected, rtol=0, atol=1e-4 * expected.std())
    z, y, x = loaded.coordinates.T
    transforms = np.fft.fftn(volumes, axes=(1, 2, 3))[:, z, y, x]
    tolerance = 1e-4 * np.abs(transforms).max()
    np.testing.assert_allclose(loaded.fourier(LATENTS), transforms, rtol=0, atol=tolerance)
    rows = np.array([5, 0, 77, 200])
    some = loaded.fourier(LATENTS, rows)
    np.testing.assert_allclose(some, transforms[:, rows], rtol=0, atol=tolerance)
    power = (loaded.multiplicity * np.abs(transforms) ** 2).sum(axis=1) / loaded.box**3
    assert power == pytest.approx((volumes**2).sum(axis=(1, 2, 3)), rel=1e-4)


def test_bits_do_not_depend_on_company(make_model, monkeypatch):
    loaded = make_model()[0].load()
    together = loaded.fourier(LATENTS)
    alone = np.concatenate([loaded.fourier(latent[None]) for latent in LATENTS])
    assert np.array_equal(together, alone)
    monkeypatch.setattr("emhet_dask.decoders.cryodrgn._BATCH_BYTES", 1)
    third, alone = list(loaded.volumes(LATENTS))[2], next(loaded.volumes(LATENTS[2:3]))
    assert np.array_equal(third, alone)


def test_first_layer_kept_or_not_is_the_same(make_model, monkeypatch):
    model = make_model()[0]
    kept = model.load().fourier(LATENTS)
    monkeypatch.setattr("emhet_dask.decoders.network._MOST_KEPT_BYTES", 0)
    monkeypatch.setattr("emhet_dask.decoders.cryodrgn._loaded", {})
    assert np.array_equal(model.load().fourier(LATENTS), kept)


def test_a_model_travels_and_loads_once(make_model):
    model = make_model()[0]
    assert pickle.loads(pickle.dumps(model)).load() is model.load()


def test_the_real_run(torch, shared_data):
    import hashlib

    import yaml
    from cryodrgn.models import HetOnlyVAE

    from emhet_dask.decoders import CryodrgnModel

    run = shared_data / "cryodrgn_run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    weights = run / "weights.3.pkl"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    latents = pickle.loads((run / "z.3.pkl").read_bytes())[[17, 4000]]
    whole, lattice = HetOnlyVAE.load(config, str(weights))
    whole.eval()
    ours = CryodrgnModel(config, str(weights), digest).load().volumes(latents)
    for latent, volume in zip(latents, ours, strict=True):
        expected = theirs(whole.decoder, lattice, config["dataset_args"]["norm"], latent)
        np.testing.assert_allclose(volume, expected, rtol=0, atol=1e-4 * expected.std())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: replace(m, box=9), "--box: got 9"),
        (lambda m: replace(m, box=32), "--box: got 32"),
        (lambda m: replace(m, weights="/nowhere/weights.pkl"), "cannot be read here"),
        (lambda m: replace(m, weights_sha256="0"), "not the file that it was"),
        (lambda m: replace(m, device="abacus"), "--device: got 'abacus'"),
        (lambda m: replace(m, device="cuda:99"), "this machine has [0-9]+ GPUs"),
        (lambda m: replace(m, config={"model_args": {}}), "no model_args"),
        (
            lambda m: replace(m, config={**m.config, "dataset_args": {}}),
            "dataset_args.norm is missing",
        ),
        (
            lambda m: replace(m, config={**m.config, "data_norm_mean": 0.0}),
            "without positional encoding",
        ),
    ],
)
def test_what_cannot_be_decoded(make_model, change, words):
    with pytest.raises(InputError, match=words):
        change(make_model()[0]).load()


def test_weights_that_would_run_code_are_refused(make_model, tmp_path):
    import hashlib

    class Crafted:
        def __reduce__(self):
            return (print, ("run",))

    model = make_model()[0]
    crafted = tmp_path / "weights.2.pkl"
    crafted.write_bytes(pickle.dumps(Crafted()))
    digest = hashlib.sha256(crafted.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="not the weights of the model"):
        replace(model, weights=str(crafted), weights_sha256=digest).load()


def test_latents_of_another_width(make_model):
    with pytest.raises(InputError, match="expected rows of 3 numbers"):
        make_model()[0].load().fourier(np.zeros((2, 5)))
