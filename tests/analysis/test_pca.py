"""PCA against scikit-learn and NumPy, by every method, on any chunking."""

from __future__ import annotations

import tracemalloc

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from emhet_dask.analysis.pca import degrees_of_freedom, pca, plan_pca
from emhet_dask.errors import InputError

METHODS = ("gram", "covariance", "randomized", "incremental")
EXACT = ("gram", "covariance")
SIGNALS = 4


def matrix(n_volumes: int, n_voxels: int, *, seed: int = 0) -> np.ndarray:
    """Four directions of signal above a floor of noise, about a mean far from zero."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(n_voxels, SIGNALS)))[0].T
    lengths = np.sqrt(n_voxels) * np.array([4.0, 3.0, 2.0, 1.5])
    signal = (rng.normal(size=(n_volumes, SIGNALS)) * lengths) @ directions
    mean = 3.0 * rng.normal(size=n_voxels)
    return (mean + signal + rng.normal(size=(n_volumes, n_voxels))).astype(np.float32)


def exact_eigenvalues(x: np.ndarray) -> np.ndarray:
    return np.linalg.svd(x - x.mean(axis=0, dtype=np.float64), compute_uv=False) ** 2 / (len(x) - 1)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize(("n_volumes", "n_voxels"), [(60, 300), (300, 60), (50, 50)])
def test_exact_methods_equal_scikit_learn(method, n_volumes, n_voxels):
    x = matrix(n_volumes, n_voxels)
    expected = PCA(10, svd_solver="full").fit(x.astype(np.float64))
    found = pca(x, n_components=10, method=method)
    np.testing.assert_allclose(found["explained_variance"], expected.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(
        found["explained_variance_ratio"], expected.explained_variance_ratio_, rtol=1e-5
    )
    np.testing.assert_allclose(found["components"], expected.components_, atol=1e-4)
    np.testing.assert_allclose(found["scores"], expected.transform(x.astype(np.float64)), atol=1e-2)
    np.testing.assert_allclose(found["mean"], expected.mean_, atol=1e-5)
    assert found.attrs["total_variance"] == pytest.approx(
        x.astype(np.float64).var(axis=0, ddof=1).sum(), rel=1e-6
    )
    known = min(n_volumes - 1, n_voxels)
    np.testing.assert_allclose(
        found["eigenvalues"][:known], exact_eigenvalues(x)[:known], rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("held", [True, False])
def test_randomised_finds_every_eigenvalue_noise_floor_included(held):
    x = da.from_array(matrix(600, 500), chunks=(128, 500))
    exact = exact_eigenvalues(matrix(600, 500))[:20]
    plan = plan_pca(x.shape, chunks=x.chunks, method="randomized")
    limit = plan["peak_bytes"] + plan["client_bytes"] + (x.nbytes if held else 0)
    found = pca(x, method="randomized", n_components=20, memory_limit_bytes=limit)
    assert (found.attrs["passes"] == 1) == held  # otherwise every step reads the matrix
    np.testing.assert_allclose(found["explained_variance"], exact, rtol=1e-3)
    np.testing.assert_allclose(found["explained_variance"][:SIGNALS], exact[:SIGNALS], rtol=1e-6)
    assert np.all(found["explained_variance"] <= exact * (1 + 1e-5))
    reference = PCA(SIGNALS, svd_solver="full").fit(matrix(600, 500)).components_
    angles = subspace_angles(reference.T, found["components"].values[:SIGNALS].T)
    assert np.degrees(angles.max()) < 0.1
    np.testing.assert_allclose(
        found["components"].values @ found["components"].values.T, np.eye(20), atol=1e-4
    )


def test_bands_that_differ_from_one_another_are_centred_together():
    """Rows held in memory are about the mean of their band: here each band has its own."""
    x = matrix(600, 300)
    x[:200] += 40.0
    x[400:] -= 25.0
    weights = np.random.default_rng(3).integers(0, 3, size=600).astype(float)
    weights[128:256] = 0.0  # a whole band that does not count
    chunked = da.from_array(x, chunks=(128, 300))
    found = pca(chunked, n_components=5, method="randomized", weights=weights)
    assert found.attrs["passes"] == 1
    expected = PCA(5, svd_solver="full").fit(
        np.repeat(x, weights.astype(int), axis=0).astype(np.float64)
    )
    np.testing.assert_allclose(found["explained_variance"], expected.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(found["mean"], expected.mean_, atol=1e-4)
    scores = (x - expected.mean_) @ found["components"].values.T
    np.testing.assert_allclose(found["scores"], scores, atol=1e-2)
    rebuilt = scores @ found["components"].values + expected.mean_
    np.testing.assert_allclose(found["residual"], ((x - rebuilt) ** 2).sum(axis=1), rtol=1e-3)


@pytest.mark.slow
def test_randomised_restarts_when_memory_is_short_and_still_converges():
    x = matrix(800, 700)
    plan = plan_pca(x.shape, method="randomized", n_components=6)
    limit = plan["peak_bytes"] + plan["client_bytes"]
    found = pca(x, method="randomized", n_components=6, memory_limit_bytes=limit)
    assert found.attrs["passes"] > 8  # six blocks of vectors are kept; so it restarted
    np.testing.assert_allclose(found["explained_variance"], exact_eigenvalues(x)[:6], rtol=1e-3)


def test_incremental_bounds_its_error():
    x = matrix(1000, 300)
    exact = exact_eigenvalues(x)[:12]
    found = pca(da.from_array(x, chunks=(200, 300)), n_components=12, method="incremental")
    below = exact - found["explained_variance"].values
    assert np.all(below >= -1e-5 * exact)
    assert np.all(below <= found["explained_variance_error"].values)
    np.testing.assert_allclose(found["explained_variance"][:SIGNALS], exact[:SIGNALS], rtol=1e-3)
    np.testing.assert_allclose(
        found["scores"].values.T @ found["scores"].values / 999,
        np.diag(found["explained_variance"]),
        atol=1e-3 * exact[0],
    )


def test_incremental_is_exact_where_its_rank_suffices():
    x = matrix(100, 40)
    found = pca(x, n_components=5, method="incremental")
    np.testing.assert_allclose(found["explained_variance"], exact_eigenvalues(x)[:5], rtol=1e-5)
    assert np.all(found["explained_variance_error"] < 1e-4 * found["explained_variance"])


@pytest.mark.parametrize("method", METHODS)
def test_whole_weights_equal_repeated_rows(method):
    x = matrix(70, 50)
    weights = np.random.default_rng(1).integers(0, 4, size=70)
    found = pca(x, n_components=5, method=method, weights=weights)
    repeated = PCA(5, svd_solver="full").fit(np.repeat(x, weights, axis=0).astype(np.float64))
    rtol = 1e-3 if method == "randomized" else 1e-4
    np.testing.assert_allclose(found["explained_variance"], repeated.explained_variance_, rtol=rtol)
    np.testing.assert_allclose(
        found["components"][:SIGNALS], repeated.components_[:SIGNALS], atol=1e-2
    )
    np.testing.assert_allclose(found["mean"], repeated.mean_, atol=1e-5)
    # Every volume has scores, those of weight 0 too.
    expected = (x - repeated.mean_) @ found["components"].values.T
    np.testing.assert_allclose(found["scores"], expected, atol=1e-3)


def test_shares_as_weights_agree_with_numpy():
    x = matrix(80, 30)
    shares = np.random.default_rng(2).uniform(0.01, 0.1, size=80)
    found = pca(x, n_components=6, weights=shares)
    expected = np.linalg.eigvalsh(np.cov(x.astype(np.float64).T, aweights=shares))[::-1][:6]
    np.testing.assert_allclose(found["explained_variance"], expected, rtol=1e-5)
    assert degrees_of_freedom(np.ones(7)) == 6.0


@pytest.mark.parametrize("method", METHODS)
def test_residual_is_what_the_components_leave(method):
    x = matrix(90, 60)
    found = pca(x, n_components=SIGNALS, method=method)
    rebuilt = found["scores"].values @ found["components"].values + found["mean"].values
    np.testing.assert_allclose(found["residual"], ((x - rebuilt) ** 2).sum(axis=1), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_scale_divides_volumes_and_half_precision_is_computed_in_single(method):
    x = matrix(90, 60).astype(np.float16)
    scale = np.random.default_rng(3).uniform(0.8, 1.2, size=90)
    divided = (x / scale[:, None].astype(np.float32)).astype(np.float32)
    found = pca(x, n_components=3, method=method, scale=scale)
    expected = pca(divided, n_components=3, method=method)
    for name in ("explained_variance", "scores", "components", "mean"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@given(
    rows=st.integers(30, 300),
    columns=st.integers(15, 60),
    ragged=st.booleans(),
)
@settings(max_examples=5, deadline=None)
def test_any_chunking_gives_the_same_answer(method, rows, columns, ragged):
    x = matrix(300, 60)
    whole = pca(x, n_components=SIGNALS, method=method)
    row_chunks = (rows, 300 - rows) if ragged and rows < 300 else rows
    found = pca(da.from_array(x, chunks=(row_chunks, columns)), n_components=SIGNALS, method=method)
    # The sketch of the incremental method does depend on how it is fed, within its bound.
    rtol = 1e-3 if method == "incremental" else 1e-6
    np.testing.assert_allclose(found["explained_variance"], whole["explained_variance"], rtol=rtol)
    np.testing.assert_allclose(found["mean"], whole["mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["components"], whole["components"], atol=30 * rtol)


@pytest.mark.parametrize("method", METHODS)
def test_same_bits_with_any_number_of_threads(method):
    shape = (1000, 300) if method == "covariance" else (300, 5000)
    x = da.from_array(matrix(*shape), chunks=(128, 2048))
    results = []
    for n_threads in (1, 3):
        with dask.config.set(scheduler="threads", num_workers=n_threads):
            results.append(pca(x, n_components=3, method=method))
    xr.testing.assert_identical(*results)


@pytest.mark.parametrize("method", METHODS)
def test_only_small_things_are_computed(method):
    x = matrix(2000, 60) if method != "gram" else matrix(60, 2000)
    largest = 0

    def counting(*tasks):
        nonlocal largest
        results = dask.compute(*tasks)
        for result in results:
            arrays = [result] if isinstance(result, np.ndarray) else vars_of(result)
            largest = max(largest, *(array.nbytes for array in arrays))
        return results

    pca(da.from_array(x, chunks=(256, 500)), n_components=3, method=method, compute=counting)
    assert 0 < largest <= x.nbytes / 4


def vars_of(result) -> list[np.ndarray]:
    values = result if isinstance(result, tuple) else vars(result).values()
    return [value for value in values if isinstance(value, np.ndarray)]


@pytest.mark.parametrize("method", METHODS)
def test_volumes_with_nan_or_infinity_are_named(method):
    x = matrix(300, 40)
    x[7, 3] = np.nan
    x[290, 39] = np.inf
    with pytest.raises(InputError, match=r"2 of the volumes hold NaN or infinity .*: 7, 290\)"):
        pca(da.from_array(x, chunks=(128, 20)), n_components=2, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_volumes_without_variance_have_zero_components(method):
    x = np.broadcast_to(matrix(1, 30), (12, 30))
    found = pca(x, n_components=4, method=method)
    assert found.attrs["total_variance"] == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(found["explained_variance"], 0.0, atol=1e-6)
    np.testing.assert_allclose(found["scores"], 0.0, atol=1e-3)
    assert np.isfinite(found["explained_variance_ratio"]).all()


@pytest.mark.parametrize("method", METHODS)
def test_fewer_directions_than_components(method):
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))).astype(np.float32)
    found = pca(x, n_components=6, method=method)
    np.testing.assert_allclose(found["explained_variance"][:2], exact_eigenvalues(x)[:2], rtol=1e-5)
    assert np.all(found["explained_variance"][2:] < 1e-5 * found["explained_variance"][0])
    assert np.isfinite(found["components"]).all()


def test_default_is_twenty_or_as_many_as_there_are():
    assert pca(matrix(30, 40)).sizes["component"] == 20
    assert pca(matrix(6, 40)).sizes["component"] == 5
    assert pca(matrix(30, 4)).sizes["component"] == 4


def test_labelled_arrays_are_taken_and_dimensions_named():
    labelled = xr.DataArray(matrix(12, 20), dims=("volume", "voxel"))
    found = pca(labelled, n_components=2)
    assert found["scores"].dims == ("volume", "component")
    assert found["components"].dims == ("component", "voxel")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 12}, "n_components 12: 12 volumes and 30 voxels allow 1 to 11"),
        ({"n_components": 0}, "allow 1 to 11"),
        ({"n_components": 5, "weights": [1] * 3 + [0] * 9}, "3 volumes .* allow 1 to 2"),
        ({"weights": np.ones(5)}, r"shape \(5,\); one number for each of the 12 volumes"),
        ({"weights": [-1] + [1] * 11}, "volume 0 has the weight -1.0"),
        ({"weights": np.zeros(12)}, "all are 0"),
        ({"scale": np.ones(3)}, r"scale: found an array of shape \(3,\)"),
        ({"scale": [1] * 11 + [0]}, "volume 11 has the factor 0.0"),
        ({"method": "magic"}, "method 'magic': one of auto, gram"),
        ({"method": "gram", "memory_limit_bytes": 1000}, "by gram needs .* more than the memory"),
    ],
)
def test_impossible_requests_say_what_would_be_right(options, message):
    with pytest.raises(InputError, match=message):
        pca(matrix(12, 30), **options)


def test_wrong_arrays_are_refused():
    with pytest.raises(InputError, match=r"shape \(3, 4, 5\); it must be \(volume, voxel\)"):
        pca(np.zeros((3, 4, 5)))
    with pytest.raises(InputError, match="complex64; it must hold real numbers"):
        pca(np.zeros((3, 4), dtype=np.complex64))
    with pytest.raises(InputError, match="needs 2 volumes"):
        pca(np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1_000, 30_000), "gram"),
        ((20, 250_000), "gram"),
        ((100_000, 3_000), "covariance"),
        ((20_000, 8_000), "randomized"),
        ((100_000, 250_000), "incremental"),
    ],
)
def test_the_method_follows_the_shape_and_the_memory(shape, expected):
    limit = (1 << 30) + (1 << 29) if expected == "incremental" else 2 << 30
    plan = plan_pca(shape, dtype=np.float16, memory_limit_bytes=limit)
    assert plan["method"] == expected
    assert plan["peak_bytes"] + plan["client_bytes"] + plan["held_bytes"] <= limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "shape"),
    [
        ("gram", (800, 12_000)),
        ("covariance", (6_000, 800)),
        ("randomized", (4_000, 4_000)),
        ("incremental", (4_000, 4_000)),
    ],
)
def test_measured_memory_stays_below_the_plan(method, shape):
    """The matrix is made block by block, as if read, so that only the method's memory counts."""
    chunks = ((800,) * (shape[0] // 800), (2_000,) * (shape[1] // 2_000) or (shape[1],))

    def noise(block_info=None):
        location = block_info[None]["chunk-location"]
        size = block_info[None]["chunk-shape"]
        return np.random.default_rng(location).standard_normal(size, dtype=np.float32)

    x = da.map_blocks(noise, chunks=chunks, dtype=np.float32)
    plan = plan_pca(shape, chunks=chunks, method=method, n_components=4)
    limit = plan["peak_bytes"] + plan["client_bytes"]  # too little to hold the matrix
    tracemalloc.start()
    try:
        with dask.config.set(scheduler="synchronous"):
            pca(x, n_components=4, method=method, memory_limit_bytes=limit, tolerance=0.05)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit
