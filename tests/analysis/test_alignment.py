"""Alignment: known motions come back, conventions are those that are written down, and fits that
are no better than their rivals say so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.alignment import Fitter, make_reference
from emhet_dask.analysis.phantom import Grid, packed_bodies
from emhet_dask.analysis.rigid import Motion, mirror, move
from emhet_dask.analysis.rotations import (
    angle_between,
    even_rotations,
    matrix_of_angles,
    relion_angles,
    rotation_count,
)
from emhet_dask.analysis.spectra import SpectrumTable, band, central_density, coefficients
from emhet_dask.analysis.typical import most_typical, shell_profile
from emhet_dask.errors import InputError

APIX = 6.0
GRID = Grid(32, APIX, 24.0)

seeds = st.integers(0, 2**31)


def atoms_of(seed=0):
    """Return positions (atom, 3), x, y, z in Å."""
    bodies = packed_bodies(
        np.random.default_rng([seed, 0]),
        n_bodies=8,
        radius_angstrom=GRID.radius_angstrom,
        gap_angstrom=24.0,
    )
    return np.concatenate(bodies)[:, ::-1]


def render(atoms, *, turn=None, shift=(0, 0, 0), snr=np.inf, seed=0, grid=GRID):
    """Return a map of atoms at turn p + shift, with noise; the shift in voxels."""
    moved = atoms if turn is None else atoms @ np.asarray(turn).T
    density = grid.render((moved + np.asarray(shift) * grid.voxel_size_angstrom)[:, ::-1])
    if np.isinf(snr):
        return density
    noise = grid.noise(np.random.default_rng([seed, 1]))
    return density + np.float32(np.sqrt(density.var() / snr)) * noise


def random_pose(seed, *, reach=0.1):
    rng = np.random.default_rng([seed, 2])
    return Rotation.random(rng=rng).as_matrix(), rng.uniform(-reach, reach, 3) * GRID.box


@pytest.fixture(scope="module")
def atoms():
    return atoms_of()


@pytest.fixture(scope="module")
def fitter(atoms):
    return Fitter(make_reference(render(atoms), voxel_size_angstrom=APIX))


# --- rotations ---


def test_the_grid_of_rotations_is_even():
    turns = even_rotations(rotation_count(15.0))
    assert 4000 < len(turns) < 5000
    np.testing.assert_allclose(np.linalg.det(turns), 1.0)
    quaternions = Rotation.from_matrix(turns).as_quat()
    tree = cKDTree(np.concatenate([quaternions, -quaternions]))
    anywhere = Rotation.random(5000, rng=np.random.default_rng(0)).as_quat()
    nearest = np.rad2deg(4 * np.arcsin(tree.query(anywhere)[0] / 2))
    assert nearest.mean() < 0.55 * 15
    assert nearest.max() < 15


@given(seed=seeds)
def test_the_angle_between_rotations_is_that_of_scipy(seed):
    first, second = Rotation.random(2, rng=np.random.default_rng(seed))
    expected = np.rad2deg((first.inv() * second).magnitude())
    found = angle_between(first.as_matrix(), second.as_matrix())
    np.testing.assert_allclose(found, expected, atol=1e-5)


@given(seed=seeds)
def test_relion_angles_give_the_matrix_back(seed):
    matrix = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    rot, tilt, psi = relion_angles(matrix)
    assert 0 <= tilt <= 180
    np.testing.assert_allclose(matrix_of_angles(rot, tilt, psi), matrix, atol=1e-9)
    # RELION turns axes, SciPy turns points.
    other = Rotation.from_euler("zyz", [-rot, -tilt, -psi], degrees=True).as_matrix()
    np.testing.assert_allclose(other, matrix, atol=1e-9)


@pytest.mark.parametrize("angles", [(0, 0, 30), (0, 0, -170), (0, 180, 50), (0, 180, 0)])
def test_relion_angles_at_the_poles(angles):
    np.testing.assert_allclose(relion_angles(matrix_of_angles(*angles)), angles, atol=1e-9)


def test_a_projection_at_relions_angles_is_that_of_the_rotated_map():
    # A quarter turn that takes x to y: RELION looks at such a map with psi = -90.
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert relion_angles(quarter) == (0.0, 0.0, -90.0)


# --- motions ---


@pytest.mark.parametrize("box", [8, 9])
def test_a_quarter_turn_and_whole_voxels_by_hand(box):
    centre = box // 2
    volume = np.zeros((box, box, box), dtype=np.float32)
    volume[centre + 1, centre, centre + 2] = 1.0  # x = 2, y = 0, z = 1
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x to y
    moved = move(volume, Motion(quarter, np.array([1.0, -1.0, -2.0])))
    # R p = (0, 2, 1), and the shift makes it (1, 1, -1).
    expected = np.zeros_like(volume)
    expected[centre - 1, centre + 1, centre + 1] = 1.0
    np.testing.assert_allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize("box", [8, 9])
def test_a_mirror_image_reverses_x_about_the_centre(box):
    centre = box // 2
    volume = np.zeros((box, box, box), dtype=np.float32)
    volume[centre + 1, centre, centre + 2] = 1.0
    expected = np.zeros_like(volume)
    expected[centre + 1, centre, centre - 2] = 1.0
    np.testing.assert_array_equal(mirror(volume), expected)
    mirrored = Motion(np.eye(3), np.zeros(3), mirrored=True)
    np.testing.assert_allclose(move(volume, mirrored), expected, atol=1e-5)


def test_a_still_motion_gives_the_very_same_values(atoms):
    volume = render(atoms, snr=1)
    hardly = Motion(Rotation.from_rotvec([0, 0, 1e-3]).as_matrix(), np.full(3, 0.01))
    assert hardly.is_still(32)
    np.testing.assert_array_equal(move(volume, hardly), volume)
    assert not Motion(hardly.rotation, np.full(3, 0.1)).is_still(32)
    assert not Motion(hardly.rotation, hardly.shift_voxels, mirrored=True).is_still(32)


def test_a_moved_map_is_that_of_the_moved_atoms(atoms):
    turn, shift = random_pose(3, reach=0.05)
    for offset in (0.0, 100.0):
        moved = move(render(atoms) + np.float32(offset), Motion(turn, shift))
        expected = render(atoms, turn=turn, shift=shift) + offset
        assert np.linalg.norm(moved - expected) < 0.03 * np.linalg.norm(expected - offset)


@given(seed=seeds, mirrored=st.booleans())
def test_the_placement_moves_points_in_angstrom_as_the_motion_says(seed, mirrored):
    rng = np.random.default_rng(seed)
    motion = Motion(Rotation.random(rng=rng).as_matrix(), rng.uniform(-5, 5, 3), mirrored=mirrored)
    origin, point = rng.uniform(-50, 50, 3), rng.uniform(-10, 10, 3)
    matrix = motion.placement(31, voxel_size_angstrom=2.0, origin_angstrom=origin)
    before = origin + (15 + point) * 2.0
    flipped = point * [-1 if mirrored else 1, 1, 1]
    after = origin + (15 + motion.rotation @ flipped + motion.shift_voxels) * 2.0
    np.testing.assert_allclose(matrix[:, :3] @ before + matrix[:, 3], after, atol=1e-9)


# --- spectra ---


def direct_sum(volume, frequencies):
    box = volume.shape[0]
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()])
    return np.exp(-2j * np.pi / box * (frequencies @ points)) @ volume.ravel() / volume.size


@pytest.mark.parametrize("box", [12, 13])
def test_coefficients_are_sums_about_the_centre_voxel(box):
    volume = np.random.default_rng(0).standard_normal((box,) * 3).astype(np.float32)
    found = coefficients(volume + 7, 5)
    np.testing.assert_allclose(found, direct_sum(volume, band(5).frequencies), atol=1e-5)


def test_a_band_has_half_of_each_shell_and_begins_with_coarser_ones():
    fine = band(7)
    np.testing.assert_array_equal(fine.frequencies[: fine.ends[4]], band(4).frequencies)
    axis = np.arange(-8, 9)
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis)))
    for shell in range(1, 8):
        both = np.count_nonzero(np.rint(radius) == shell)
        assert 2 * (fine.ends[shell] - fine.ends[shell - 1]) == both
    signs = {tuple(k) for k in fine.frequencies} & {tuple(-k) for k in fine.frequencies}
    assert not signs


@pytest.mark.parametrize("box", [32, 31])
def test_the_table_is_the_transform_between_its_nodes(atoms, box):
    grid = Grid(box, APIX, 24.0)
    density = central_density(render(atoms, grid=grid), 10)
    assert density.shape == (22, 22, 22)
    directions = np.random.default_rng(1).standard_normal((300, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = directions * np.random.default_rng(2).uniform(0.5, 10, (300, 1))
    expected = direct_sum(density, places)
    table = SpectrumTable(density)
    found = table.read(places.astype(np.float32), gradient=True)
    scale = np.sqrt(np.mean(np.abs(expected) ** 2))
    assert np.sqrt(np.mean(np.abs(found[:, 0] - expected) ** 2)) < 0.02 * scale
    for axis in range(3):
        step = np.eye(3)[axis] * 1e-3
        slope = (direct_sum(density, places + step) - direct_sum(density, places - step)) / 2e-3
        error = np.sqrt(np.mean(np.abs(found[:, 1 + axis] - slope) ** 2))
        assert error < 0.03 * np.sqrt(np.mean(np.abs(slope) ** 2))
    np.testing.assert_allclose(table.read(places.astype(np.float32))[:, 0], found[:, 0])


# --- fits ---


def errors_of(fit, turn, shift):
    """Return how far in degrees and voxels a fit is from the motion that made the map."""
    back, there = fit.motion.rotation.T, fit.motion.shift_voxels
    return float(angle_between(back, turn)), float(np.linalg.norm(-back @ there - shift))


@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_any_pose_comes_back_at_snr_1(fitter, atoms, seed):
    turn, shift = random_pose(seed)
    fit = fitter.fit(render(atoms, turn=turn, shift=shift, snr=1, seed=seed))
    degrees, voxels = errors_of(fit, turn, shift)
    assert degrees < 1.5
    assert voxels < 0.5
    assert not fit.flagged
    assert fit.correlation > fit.rival_correlation
    assert fit.margin > 2


def test_a_moved_map_lies_on_the_reference(fitter, atoms):
    turn, shift = random_pose(5)
    volume = render(atoms, turn=turn, shift=shift)
    moved = move(volume, fitter.fit(volume).motion)
    reference = render(atoms)
    assert np.corrcoef(moved.ravel(), reference.ravel())[0, 1] > 0.998


def test_the_reference_fits_itself_without_moving(fitter, atoms):
    fit = fitter.fit(render(atoms), hand=True)
    np.testing.assert_array_equal(fit.motion.rotation, np.eye(3))
    np.testing.assert_array_equal(fit.motion.shift_voxels, 0)
    assert not fit.motion.mirrored
    assert not fit.flagged


def test_amplitude_contrast_and_offset_do_not_matter(fitter, atoms):
    turn, shift = random_pose(6)
    volume = render(atoms, turn=turn, shift=shift, snr=3)
    expected = fitter.fit(volume)
    for factor, offset in ((1e-6, 0.0), (1e4, 3e4)):
        fit = fitter.fit(volume * np.float32(factor) + np.float32(offset))
        assert angle_between(fit.motion.rotation, expected.motion.rotation) < 0.05
        assert fit.correlation == pytest.approx(expected.correlation, abs=1e-3)


def test_the_mirror_image_is_taken_where_it_is_asked_for_and_better(fitter, atoms):
    turn, shift = random_pose(7)
    volume = mirror(render(atoms, turn=turn, shift=shift, snr=1))
    fit = fitter.fit(volume, hand=True)
    assert fit.motion.mirrored
    assert fit.hand_margin > 2
    assert not fit.flagged
    degrees, voxels = errors_of(fit, turn, shift)
    assert degrees < 1.5
    assert voxels < 0.5
    assert not fitter.fit(mirror(volume), hand=True).motion.mirrored
    assert fitter.fit(volume).flagged


def test_noise_and_other_molecules_are_flagged(fitter):
    noise = GRID.noise(np.random.default_rng(8))
    assert fitter.fit(noise).reason == "a rival orientation fits as well"
    other = render(atoms_of(11), turn=random_pose(11)[0], snr=2, seed=11)
    assert fitter.fit(other).flagged


def test_a_symmetric_molecule_is_flagged_and_stays_where_it_fits_as_well(atoms):
    third = np.arctan2(atoms[:, 1], atoms[:, 0]) % (2 * np.pi) < 2 * np.pi / 3
    turns = Rotation.from_euler("z", [[0], [120], [240]], degrees=True)
    symmetric = np.concatenate([turn.apply(atoms[third]) for turn in turns])
    fitter = Fitter(make_reference(render(symmetric), voxel_size_angstrom=APIX))
    fit = fitter.fit(render(symmetric, snr=2, seed=3))
    assert fit.reason == "a rival orientation fits as well"
    assert fit.rival_correlation > 0.95 * fit.correlation
    assert angle_between(fit.motion.rotation, np.eye(3)) < 1.5


def test_an_odd_box_and_a_resolution(atoms):
    grid = Grid(33, APIX, 24.0)
    reference = make_reference(
        render(atoms, grid=grid), voxel_size_angstrom=APIX, resolution_angstrom=20.0
    )
    assert reference.shells == 9
    turn, shift = random_pose(9)
    fit = Fitter(reference).fit(render(atoms, turn=turn, shift=shift, snr=2, grid=grid))
    degrees, voxels = errors_of(fit, turn, shift)
    assert degrees < 2
    assert voxels < 0.5


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda volume: volume * np.nan, "holds NaN or infinite densities"),
        (lambda volume: volume * 0, "is constant"),
    ],
)
def test_nonsense_is_refused(fitter, atoms, spoil, message):
    spoilt = spoil(render(atoms))
    with pytest.raises(InputError, match=f"the reference {message}"):
        make_reference(spoilt, voxel_size_angstrom=APIX)
    with pytest.raises(InputError, match=f"the map {message}"):
        fitter.fit(spoilt)


def test_a_resolution_that_leaves_nothing_is_refused(atoms):
    with pytest.raises(InputError, match=r"holds 2 Fourier shells .* 64 Å or finer"):
        make_reference(render(atoms), voxel_size_angstrom=APIX, resolution_angstrom=90.0)


# --- a reference among maps ---


@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_a_motion_does_not_change_the_profile(atoms, seed):
    turn, shift = random_pose(seed)
    moved = shell_profile(render(atoms, turn=turn, shift=shift), shells=8)
    np.testing.assert_allclose(moved, shell_profile(render(atoms), shells=8), atol=0.25)


def test_the_most_typical_map_is_no_outlier(atoms):
    maps = [
        render(atoms, turn=random_pose(seed)[0], snr=snr, seed=seed)
        for seed, snr in enumerate([4, 4, 4, 0.01, 4])
    ]
    profiles = np.stack([shell_profile(volume) for volume in maps])
    assert most_typical(profiles) != 3
    weights = np.array([1.0, 1.0, 1.0, 100.0, 5.0])
    assert most_typical(profiles, weights=weights) != 3
    assert most_typical([[1.0], [1.1], [0.9], [5.0]], weights=[1, 2, 7, 9]) == 1
