"""Read-outs of volumes: the same in voxels and Fourier space, and those of the PCA itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.normalisation import divisors, fit_amplitudes
from emhet_dask.analysis.pca import pca
from emhet_dask.analysis.read_outs import ReadOuts, fourier_weights, products_in_fourier_space
from emhet_dask.decoders.halfspace import HalfSpace, is_first_of_pair


def half_space(box):
    axis = np.arange(-(box // 2), box // 2, dtype=np.int32)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return HalfSpace(grid[is_first_of_pair(grid, box)], box)


def some_volumes(n, box, seed=0):
    """Volumes that vary along three maps and in amplitude, over a core that stays."""
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((3, box, box, box)).astype(np.float32)
    core = 10 + rng.random((box, box, box), dtype=np.float32)
    scores = rng.standard_normal((n, 3)) * (2.0, 1.0, 0.5)
    amplitude = 1 + 0.05 * rng.standard_normal(n)
    return (amplitude[:, None, None, None] * (core + np.tensordot(scores, maps, 1))).astype(
        np.float32
    )


def landscape_of(volumes, index, soft, *, normalize=True, clip_negative=False):
    """Return the PCA of masked volumes, and the read-outs that come of it."""
    rows = volumes.reshape(len(volumes), -1)[:, index]
    rows = np.maximum(rows, 0) if clip_negative else rows
    fit, factors = fit_amplitudes(rows * soft)
    divided = rows / divisors(factors)[:, None] if normalize else rows
    found = pca((divided * soft).astype(np.float32), n_components=3)
    read_outs = ReadOuts.of(
        components=found["components"].values,
        mean=found["mean"].values,
        voxel_index=index,
        voxel_weight=soft,
        amplitude=fit if normalize else None,
        clip_negative=clip_negative,
    )
    return found["scores"].values, read_outs


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("clip_negative", [True, False])
def test_volumes_of_the_pca_get_their_own_scores(normalize, clip_negative):
    volumes = some_volumes(40, 8) - 9.5
    rng = np.random.default_rng(1)
    index = np.sort(rng.choice(8**3, 200, replace=False))
    soft = rng.uniform(0.2, 1, 200)
    scores, read_outs = landscape_of(
        volumes, index, soft, normalize=normalize, clip_negative=clip_negative
    )
    found = read_outs.scores(np.stack([read_outs.products(volume) for volume in volumes]))
    np.testing.assert_allclose(found, scores, atol=1e-3 * scores.std(axis=0).min())


@settings(max_examples=20, deadline=None)
@given(box=st.sampled_from([4, 6, 8]), n_voxels=st.integers(1, 60), seed=st.integers(0, 99))
def test_products_are_the_same_in_fourier_space(box, n_voxels, seed):
    rng = np.random.default_rng(seed)
    index = np.sort(rng.choice(box**3, n_voxels, replace=False))
    vectors = rng.standard_normal((3, n_voxels)).astype(np.float32)
    read_outs = ReadOuts(vectors, index, np.zeros(2), 1.0, 1.0, clip_negative=False)
    volume = rng.standard_normal((box, box, box)).astype(np.float32)
    half = half_space(box)
    weights = fourier_weights(
        read_outs, box=box, coordinates=half.coordinates, multiplicity=half.multiplicity
    )
    coefficients = np.fft.fftn(volume)[tuple(half.coordinates.T % box)].astype(np.complex64)
    found = products_in_fourier_space(coefficients[None], weights)[0]
    np.testing.assert_allclose(found, vectors @ volume.ravel()[index], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(read_outs.products(volume), vectors @ volume.ravel()[index])


def test_the_bits_of_a_volume_do_not_depend_on_its_neighbours():
    volumes = some_volumes(7, 6)
    scores, read_outs = landscape_of(volumes, np.arange(100), np.ones(100))
    assert np.isfinite(scores).all()
    half = half_space(6)
    weights = fourier_weights(
        read_outs, box=6, coordinates=half.coordinates, multiplicity=half.multiplicity
    )
    places = tuple(half.coordinates.T % 6)
    coefficients = np.stack([np.fft.fftn(v)[places] for v in volumes]).astype(np.complex64)
    whole = products_in_fourier_space(coefficients, weights)
    alone = [products_in_fourier_space(coefficients[row : row + 1], weights) for row in range(7)]
    np.testing.assert_array_equal(whole, np.concatenate(alone))


def test_clipped_volumes_have_no_read_outs_in_fourier_space():
    _, read_outs = landscape_of(some_volumes(10, 4), np.arange(20), np.ones(20), clip_negative=True)
    with pytest.raises(ValueError, match="clipped"):
        fourier_weights(read_outs, box=4, coordinates=[[0, 0, 0]], multiplicity=[1])
