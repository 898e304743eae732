"""Similarity of all pairs and of one against all, against NumPy, SciPy and a plain FSC."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist, squareform

from emhet_dask.analysis import pair_kernels, similarity
from emhet_dask.analysis.ranking import shell_similarity_to, similarity_to
from emhet_dask.analysis.similarity import (
    pair_kernel,
    shell_kernel,
    shell_similarity_matrix,
    similarity_matrix,
)
from emhet_dask.errors import InputError


def alike(n, n_voxels, seed=0, *, mean=0.0):
    """Rows of which some resemble each other, about a common mean."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((3, n_voxels))
    return mean + kinds[rng.integers(0, 3, n)] + 0.7 * rng.standard_normal((n, n_voxels))


def plain_fsc(first, second):
    """FSC of shells 1 to Nyquist, one coefficient after another over the whole sphere."""
    f, g = np.fft.fftn(first), np.fft.fftn(second)
    k = np.fft.fftfreq(len(f), 1 / len(f))
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    curve = []
    for shell in range(1, len(f) // 2 + 1):
        inside = (radius >= shell - 0.5) & (radius < shell + 0.5)
        shared = (f[inside] * g[inside].conj()).sum().real
        power = (abs(f[inside]) ** 2).sum() * (abs(g[inside]) ** 2).sum()
        curve.append(shared / np.sqrt(power))
    return np.array(curve)


def smooth_maps(n, box, seed=0):
    """Maps with less in common the finer one looks."""
    rng = np.random.default_rng(seed)
    k = np.fft.fftfreq(box, 1 / box)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    shared = np.fft.fftn(rng.standard_normal((box,) * 3)) * 3 * np.exp(-radius / 2)
    maps = [
        np.fft.ifftn(shared + np.fft.fftn(rng.standard_normal((box,) * 3))).real for _ in range(n)
    ]
    return np.array(maps, dtype=np.float32)


# Two voxels may be equal after rounding, and such a row has no correlation.
@given(
    n=st.integers(2, 400),
    n_voxels=st.integers(8, 60),
    rows=st.integers(1, 400),
    columns=st.integers(1, 60),
    mean=st.sampled_from([0.0, 1e3, -1e6]),
    dtype=st.sampled_from([np.float32, np.float64]),
    strip=st.integers(1, 70),
    tile=st.integers(1, 500),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_correlation_is_numpys_on_any_chunking(
    n, n_voxels, rows, columns, mean, dtype, strip, tile, seed
):
    x = alike(n, n_voxels, seed, mean=mean).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_kernels, "_STRIP_COLUMNS", strip)
        patch.setattr(pair_kernels, "_TILE", max(tile, n // 8))
        lazy = similarity_matrix(da.from_array(x, chunks=(rows, columns)))
        assert lazy.dims == ("volume", "volume_b")
        r = lazy.values
    np.testing.assert_allclose(r, np.corrcoef(x.astype(np.float64)), atol=1e-5)
    np.testing.assert_array_equal(r, r.T)
    np.testing.assert_array_equal(np.diag(r), 1)


def test_half_precision_is_compared_as_it_is():
    x = alike(40, 300, mean=5).astype(np.float16)
    np.testing.assert_allclose(similarity_matrix(x), np.corrcoef(x.astype(float)), atol=1e-5)


def test_weighted_correlation():
    x, w = alike(30, 50, mean=100.0), np.random.default_rng(1).random(50)
    w[:5] = 0
    covariance = np.cov(x, aweights=w)
    sd = np.sqrt(np.diag(covariance))
    expected = covariance / np.outer(sd, sd)
    np.testing.assert_allclose(similarity_matrix(x, weights=w), expected, atol=1e-5)
    np.testing.assert_allclose(similarity_to(x, x[3], weights=w), expected[3], atol=1e-5)
    x[4, 5:] = 7.0  # constant where it counts
    assert np.isnan(similarity_matrix(x, weights=w).values[4]).all()


@given(
    n=st.integers(2, 300),
    rows=st.integers(1, 300),
    mean=st.sampled_from([0.0, 1e4]),
    weighted=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_distances_are_scipys_on_any_chunking(n, rows, mean, weighted):
    x = alike(n, 40, n, mean=mean)
    w = np.random.default_rng(0).random(40) if weighted else np.ones(40)
    d = similarity_matrix(
        da.from_array(x, chunks=(rows, 7)), metric="l2", weights=w if weighted else None
    ).values
    np.testing.assert_allclose(d, squareform(pdist(x, w=w)), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(d, d.T)
    np.testing.assert_array_equal(np.diag(d), 0)


def test_constant_maps_are_like_nothing():
    x = alike(300, 30)
    x[[5, 290]] = 0.5  # of 0.1, NumPy's own mean differs by rounding
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(x)
    r = similarity_matrix(da.from_array(x, chunks=(128, 30))).values
    np.testing.assert_allclose(r, expected, atol=1e-5)
    x[5] = 0.1
    r = similarity_matrix(x).values
    assert np.isnan(r[5]).all()
    assert np.isnan(r[:, 290]).all()
    np.testing.assert_array_equal(np.flatnonzero(pair_kernel(x).undefined), [5, 290])
    assert np.isnan(similarity_to(x, x[0]).values[5])
    assert np.isnan(similarity_to(x, x[5])).all()
    assert np.isfinite(similarity_matrix(x, metric="l2")).all()


def test_each_block_is_multiplied_once(monkeypatch):
    seen = []
    compute_block = pair_kernels.PairKernel.block

    def counted(self, read, rows, others):
        seen.append((rows.start, others.start))
        return compute_block(self, read, rows, others)

    monkeypatch.setattr(pair_kernels.PairKernel, "block", counted)
    similarity_matrix(da.from_array(alike(500, 10), chunks=(130, 10))).compute(
        scheduler="synchronous"
    )
    assert len(seen) == len(set(seen)) == 10
    assert all(first <= second for first, second in seen)


def test_nothing_is_computed_until_it_is_asked_for():
    def refuse(*_, **__):
        raise AssertionError

    x = da.from_array(alike(20, 5), chunks=(5, 5))
    with dask.config.set(scheduler=refuse):
        similarity_matrix(x)
        similarity_to(x, np.zeros(5))
        shell_similarity_matrix(da.zeros((3, 8, 8, 8)), voxel_size_angstrom=2.0)


def test_one_against_all_is_its_row():
    x = alike(300, 50, mean=1e3)
    labelled = xr.DataArray(da.from_array(x, chunks=(100, 20)), dims=("volume", "voxel"))
    found = similarity_to(labelled, x[17])
    assert found.dims == ("volume",)
    np.testing.assert_allclose(found, np.corrcoef(x)[17], atol=1e-6)
    found = similarity_to(labelled, x[17], metric="l2")
    np.testing.assert_allclose(found, cdist(x, x[17:18])[:, 0], rtol=1e-6)


@pytest.mark.parametrize("box", [12, 13])
def test_mean_fsc_is_that_of_the_plain_formula(box):
    maps = smooth_maps(5, box)
    mask = np.random.default_rng(0).random((box,) * 3)
    limit = box * 2.0 / 4  # shells 1 to 4
    options = {"mask": mask, "voxel_size_angstrom": 2.0, "resolution_angstrom": limit}
    found = shell_similarity_matrix(da.from_array(maps, chunks=(2, -1, 5, -1)), **options).values
    expected = [[plain_fsc(a * mask, b * mask)[:4].mean() for b in maps] for a in maps]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(np.diag(found), 1)
    np.testing.assert_array_equal(found, found.T)
    to_one = shell_similarity_to(maps, maps[2], **options)
    np.testing.assert_allclose(to_one, np.array(expected)[2], atol=1e-5)


@pytest.mark.parametrize("strip", [10, 100_000])
@pytest.mark.parametrize("threshold", [0.143, 0.5, -2.0])
def test_resolution_is_where_the_plain_fsc_falls_below(monkeypatch, strip, threshold):
    monkeypatch.setattr(pair_kernels, "_STRIP_COLUMNS", strip)
    maps = smooth_maps(6, 16)
    maps[4] = maps[3]
    options = {
        "metric": "fsc-resolution", "voxel_size_angstrom": 1.5, "threshold": threshold,
    }  # fmt: skip
    found = shell_similarity_matrix(maps, **options).values
    shells = np.arange(1, 9)
    expected = np.full((6, 6), 24.0 / 8)
    for i in range(6):
        for j in range(6):
            below = np.flatnonzero(plain_fsc(maps[i], maps[j]) < threshold)
            if i != j and len(below):
                last, (above, under) = below[0], plain_fsc(maps[i], maps[j])[below[0] - 1 :][:2]
                crossing = np.interp(-threshold, [-above, -under], shells[last - 1 : last + 1])
                expected[i, j] = 24.0 / crossing
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert found[3, 4] == found[0, 0] == 3.0
    np.testing.assert_allclose(shell_similarity_to(maps, maps[1], **options), found[1], rtol=1e-3)


def test_maps_that_share_nothing_have_the_resolution_of_the_first_shell():
    maps = smooth_maps(2, 8)
    maps[1] = -maps[0]
    found = shell_similarity_matrix(maps, metric="fsc-resolution", voxel_size_angstrom=2.0)
    np.testing.assert_array_equal(found, [[4, 16], [16, 4]])


@pytest.mark.parametrize("metric", ["fsc-mean", "fsc-resolution"])
def test_a_map_that_is_constant_inside_the_mask_has_no_fsc(metric):
    maps = smooth_maps(3, 8)
    mask = np.zeros((8, 8, 8))
    mask[2:6, 2:6, 2:6] = 0.5
    maps[1][mask > 0] = 3.0
    found = shell_similarity_matrix(maps, metric=metric, mask=mask, voxel_size_angstrom=2.0).values
    expected = np.zeros((3, 3), dtype=bool)
    expected[1] = expected[:, 1] = True
    np.testing.assert_array_equal(np.isnan(found), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: similarity_matrix(x, metric="cosine"), "must be correlation or l2"),
        (lambda x: similarity_matrix(x, weights=np.ones(3)), "each of the 5 voxels"),
        (lambda x: similarity_matrix(x, weights=-np.ones(5)), "0 or more"),
        (lambda x: similarity_matrix(x, weights=np.zeros(5)), "all are 0"),
        (lambda x: similarity_to(x, np.ones(4)), "the reference has shape"),
        (lambda x: similarity_to(x, np.full(5, np.nan)), "NaN"),
        (lambda x: pair_kernel(np.where(np.arange(4)[:, None] == 2, np.nan, x)), "volume 2 holds"),
        (
            lambda x: pair_kernel(np.where(np.arange(4)[:, None] == 3, np.inf, x), metric="l2"),
            "volume 3 holds",
        ),
        (
            lambda x: shell_similarity_matrix(np.zeros((2, 4, 4, 6)), voxel_size_angstrom=1.0),
            "cubic",
        ),
        (
            lambda x: shell_similarity_matrix(
                np.zeros((2, 8, 8, 8)), voxel_size_angstrom=1.0, resolution_angstrom=9.0
            ),
            "coarser than the box",
        ),
        (
            lambda x: shell_similarity_matrix(
                np.zeros((2, 8, 8, 8)), voxel_size_angstrom=1.0, mask=np.ones((4, 4, 4))
            ),
            "the mask has shape",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(alike(4, 5))
    assert "\n" not in str(caught.value)


def test_shell_kernel_names_empty_rows():
    rows = np.ones((4, 6), dtype=np.float32)
    rows[2] = 0
    shells = similarity.shell_matrix(np.zeros((1, 4, 4, 4)), voxel_size_angstrom=1.0)[1]
    np.testing.assert_array_equal(shell_kernel(rows, shells).undefined, [False, False, True, False])
