"""Masks over padded transforms, against masks over maps."""

import numpy as np
import pytest

from emhet_dask.analysis.projection import interpolation_dimming, plan_slices, volume_transform
from emhet_dask.analysis.support import disc, filled_with_noise, map_of, sphere, support_of

BOX = 32


def blobs(*places: tuple[int, int, int]) -> np.ndarray:
    axis = np.arange(BOX)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    total = np.zeros((BOX, BOX, BOX))
    for at in places:
        square = (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2
        total += np.exp(-square / (2 * 2.2**2))
    return total.astype(np.float32)


def sums_over_weights(volume: np.ndarray, grid) -> np.ndarray:
    """Return the transform that adding slices up gives: dimmed, where `volume_transform` is not."""
    dimmed = interpolation_dimming(BOX, padding=2)
    return volume_transform(volume * dimmed**2, grid)[:, None]


def test_what_is_inside_stays_and_what_is_outside_goes():
    grid = plan_slices(BOX, radius=10)
    half = np.zeros((BOX, BOX, BOX), dtype=np.float32)
    half[:, :, : BOX // 2] = 1
    inside, outside = blobs((14, 18, 8)), blobs((18, 14, 24))
    support = support_of(half, grid)
    kept = support.keep(sums_over_weights(inside + outside, grid))
    alone = support.keep(sums_over_weights(inside, grid))
    np.testing.assert_allclose(map_of(kept[:, 0], grid), map_of(alone[:, 0], grid), atol=0.02)
    np.testing.assert_allclose(map_of(kept[:, 0], grid), inside, atol=0.03)


def test_everything_may_stay():
    grid = plan_slices(BOX, radius=8)
    support = support_of(np.ones((BOX,) * 3), grid)
    volume = blobs((16, 16, 16))
    expected = volume_transform(volume, grid)[:, None]
    found = support.keep(sums_over_weights(volume, grid))
    np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


def test_share_is_what_noise_keeps_of_itself():
    # White noise in the transform, looked up where weights are known: by its mean square.
    rng = np.random.default_rng(0)
    grid = plan_slices(BOX, radius=10)
    support = support_of(sphere(BOX, diameter=20), grid)
    shape = (2 * grid.reach + 1,) * 3
    cube = np.fft.fftn(rng.normal(size=shape))
    noise = np.fft.fftshift(cube)[:, :, grid.reach :].reshape(-1, 1).astype(np.complex64)
    kept = support.keep(noise)
    plain = np.square(np.abs(kept)).mean() / np.square(np.abs(noise)).mean()
    # The window of the look-up weighs the middle, where the mask is, higher.
    assert plain < support.share < 6 * plain


@pytest.mark.parametrize("diameter", [8.0, 20.0])
def test_sphere_and_disc_have_soft_edges(diameter):
    ball = sphere(BOX, diameter=diameter)
    assert ball[16, 16, 16] == 1
    assert ball.min() == 0
    line = ball[16, 16, 16:]
    assert (np.diff(line) <= 0).all()
    assert line[int(diameter / 2)] < 1e-6
    shifted = disc(BOX, diameter=diameter, shifts=[[0.0, 0.0], [3.0, -2.0]])
    np.testing.assert_allclose(shifted[0], ball[16], atol=1e-6)
    # A particle that has to be moved by +3 along x is 3 to the left.
    np.testing.assert_allclose(shifted[1], np.roll(shifted[0], (2, -3), axis=(0, 1)), atol=1e-6)


def test_noise_that_fills_is_like_what_was_there():
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX))
    coloured = np.fft.rfft2(rng.normal(size=(300, BOX, BOX))) * np.exp(-4 * frequency)
    images = np.fft.irfft2(coloured, s=(BOX, BOX)).astype(np.float32)
    inside = disc(BOX, diameter=20, shifts=np.zeros((300, 2)))
    found = filled_with_noise(images, inside, np.random.default_rng(1))
    np.testing.assert_allclose(found[:, 15:17, 15:17], images[:, 15:17, 15:17], atol=1e-5)
    corner = (slice(None), slice(0, 5), slice(0, 5))
    assert abs(np.corrcoef(found[corner].ravel(), images[corner].ravel())[0, 1]) < 0.05
    for each in (found, images):
        neighbours = np.corrcoef(each[:, 0, 0], each[:, 0, 1])[0, 1]
        assert neighbours == pytest.approx(
            np.corrcoef(images[:, 1:5, :4].ravel(), images[:, 1:5, 1:5].ravel())[0, 1], abs=0.15
        )
    np.testing.assert_allclose(found[corner].std(), images[corner].std(), rtol=0.1)
