"""From densities to blocks: planted ones are found, and none in maps of one state."""

from dataclasses import replace
from functools import cache, partial

import dask.array as da
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from emhet_dask.analysis.association import Association
from emhet_dask.analysis.background import measure_background
from emhet_dask.analysis.binarised import count_occupied, kept_voxels, occupancy, pack
from emhet_dask.analysis.block_search import Densities, search_blocks
from emhet_dask.analysis.blocks import pieces_of
from emhet_dask.analysis.cooccupancy import associations
from emhet_dask.analysis.near_pairs import near_pairs
from emhet_dask.analysis.normalisation import divisors, normalisation_factors
from emhet_dask.analysis.relations import block_relations
from emhet_dask.analysis.simulation import assembly_model, simulate
from emhet_dask.analysis.thresholds import automatic_level

BOX, N = 32, 150


class Search:
    """What the command does, in memory."""

    def __init__(self, volumes):
        n = len(volumes)
        self.background = measure_background(volumes[:64], n_volumes=n)
        rows = volumes.reshape(n, -1)
        inside = np.flatnonzero((rows > 0.1).mean(axis=0) > 0.005)
        rows = np.ascontiguousarray(rows[:, inside])
        factors = divisors(normalisation_factors(rows))
        densest = np.percentile(volumes.reshape(n, -1), 99.99, axis=1) / factors
        thresholds = automatic_level(densest, noise=self.background.std) * factors
        occupied = occupancy(rows, thresholds)
        kept = kept_voxels(count_occupied(occupied), n)
        self.packed = pack(occupied, voxels=kept)
        self.index = inside[kept]
        coordinates = np.stack(np.unravel_index(self.index, volumes.shape[1:]), 1)
        self.coordinates = coordinates.astype(np.int32)
        self.length = self.background.length
        self.edges = associations(
            self.packed, coordinates=self.coordinates, least_distance=self.length
        )
        self.densities = Densities(rows, kept, self.coordinates, thresholds, factors)

    def find(self, *, edges=None, densities=None, **options):
        tests = Association(self.packed.margins, self.packed.n_volumes, *self.edges.alpha.values)
        near = near_pairs(self.coordinates, self.length, self.packed.n_voxels)
        return search_blocks(
            self.edges if edges is None else edges,
            densities or self.densities,
            occupied=self.packed,
            tests=tests,
            near=near,
            **options,
        )

    def in_box(self, labels):
        """Return the block of each voxel of the box, from 1."""
        flat = np.zeros(BOX**3, dtype=int)
        flat[self.index] = labels + 1
        return flat.reshape((BOX,) * 3)


def assembly(*patterns, seed=0):
    """A complex of 6 subunits; rows of 0 and 1 tell which are there, and how often that is so."""
    model = assembly_model(
        box=BOX, voxel_size_angstrom=6.0, resolution_angstrom=14.0, n_subunits=6, seed=seed
    )
    if not patterns:
        return model
    presence = np.array([[int(here) for here in pattern] for pattern, _ in patterns], dtype=bool)
    chances = np.array([chance for _, chance in patterns])
    return replace(model, presence=presence, probability=chances / chances.sum(), rules=())


def mixed(*, often, together):
    """Subunit `often` in 90% of the volumes, two together in 55%, the others at random."""
    patterns = []
    for frequent, share in ((1, 0.9), (0, 0.1)):
        for pair, part in ((1, 0.55), (0, 0.45)):
            for bits in range(2 ** (5 - 1 - len(together))):
                row = np.ones(6, dtype=int)
                rest = [k for k in range(1, 6) if k != often and k not in together]
                row[often] = frequent
                row[list(together)] = pair
                row[rest] = [(bits >> place) & 1 for place in range(len(rest))]
                patterns.append(("".join(map(str, row)), share * part))
    return assembly(*patterns)


def farthest(model):
    """Two subunits that are farthest apart, and one of the others."""
    centres = np.array([np.argwhere(model.labels == k).mean(axis=0) for k in range(1, 7)])
    distance = np.linalg.norm(centres[:, None] - centres, axis=2)
    distance[0] = distance[:, 0] = 0
    pair = tuple(int(k) for k in np.unravel_index(distance.argmax(), distance.shape))
    return pair, next(k for k in range(1, 6) if k not in pair)


@cache
def made(seed):
    model = assembly(seed=seed)
    simulated = simulate(model, N, seed=100 + seed)
    search = Search(simulated["volumes"].values)
    return model, simulated["presence"].values, search, search.find()


@pytest.fixture(params=[0, 1])
def planted(request):
    return made(request.param)


def subunits_of(model, found, search):
    """Subunit, from 0, that most voxels of each block belong to."""
    truth = model.labels.ravel()[search.index]
    return [np.bincount(truth[found.labels == k]).argmax() - 1 for k in range(found.n_blocks)]


def test_planted_blocks_are_found(planted):
    model, presence, search, found = planted
    assert found.n_blocks == 5  # all but the core
    truth = model.labels.ravel()[search.index]
    both = (truth > 1) & (found.labels >= 0)
    assert adjusted_rand_score(truth[both], found.labels[both]) >= 0.99
    assert both.sum() >= 0.8 * np.count_nonzero(model.labels > 1)
    assert np.count_nonzero((found.labels >= 0) & (truth < 2)) < 0.02 * both.sum()
    own = subunits_of(model, found, search)
    assert sorted(own) == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(found.present, presence[:, own])


def test_planted_relations_are_found(planted):
    model, _, search, found = planted
    table = block_relations(found.present, [k + 1 for k in subunits_of(model, found, search)])
    table = table[table["relation"] != "independent"]
    rows = {
        (row.relation, *((row.block_a, row.block_b) if row.relation == "requires"
                         else sorted((row.block_a, row.block_b))))
        for row in table.itertuples()
    }  # fmt: skip
    # 'subunit 6 only with subunit 3', 'subunit 2 or 5 or neither, never both'
    needs, excludes = (rule.replace(",", "").split() for rule in model.rules[1:3])
    assert rows == {
        ("requires", int(needs[1]), int(needs[-1])),
        ("excludes", int(excludes[1]), int(excludes[3])),
    }


def test_what_is_said_of_blocks_is_what_the_maps_say(planted):
    _, _, search, found = planted
    densities = search.densities
    rows = densities.matrix[:, densities.columns].astype(float)
    sizes = np.bincount(found.labels[found.labels >= 0])
    assert (np.diff(sizes) <= 0).all()
    assert (found.core <= (found.labels >= 0)).all()
    level = np.median(densities.thresholds / densities.factors)
    for k in range(found.n_blocks):
        own = rows[:, found.labels == k]
        occupied = (own > densities.thresholds[:, None]).mean(axis=1)
        np.testing.assert_allclose(found.occupancy[:, k], occupied, rtol=1e-12)
        density = own.mean(axis=1) / densities.factors
        np.testing.assert_allclose(found.density[:, k], density, rtol=1e-6)
        here = occupied > found.cuts[k]
        np.testing.assert_array_equal(found.present[:, k], here)
        contrast = (density[here].mean() - density[~here].mean()) / level
        assert found.contrast[k] == pytest.approx(contrast, rel=1e-6)
        assert found.contrast[k] >= 0.25
    positive = search.edges.sel(tail="positive")
    inside = [[] for _ in range(found.n_blocks)]
    for voxel, block in enumerate(found.labels):
        for other, phi in zip(
            positive["neighbour"].values[voxel], positive["phi"].values[voxel], strict=True
        ):
            if block >= 0 and other >= 0 and found.labels[other] == block:
                inside[block].append(float(phi))
    np.testing.assert_allclose(found.phi, [np.mean(each) for each in inside], rtol=1e-5)


def test_a_block_in_nine_tenths_of_the_volumes_and_one_in_two_pieces():
    pair, often = farthest(assembly())
    model = mixed(often=often, together=pair)
    simulated = simulate(model, N, seed=3)
    presence = simulated["presence"].values
    assert 0.85 < presence[:, often].mean() < 0.95
    search = Search(simulated["volumes"].values)
    found = search.find()
    own = subunits_of(model, found, search)
    assert len(own) == 4
    assert often in own
    np.testing.assert_array_equal(found.present[:, own.index(often)], presence[:, often])
    (both,) = (k for k, subunit in enumerate(own) if subunit in pair)
    np.testing.assert_array_equal(found.present[:, both], presence[:, pair[0]])
    truth = model.labels.ravel()[search.index]
    parts = [np.count_nonzero((found.labels == both) & (truth == k + 1)) for k in pair]
    assert min(parts) > 0.8 * min(np.count_nonzero(model.labels == k + 1) for k in pair)
    pieces = pieces_of(search.in_box(found.labels))
    assert pieces["pieces"][both] == 2
    assert pieces["pieces"].drop(both).eq(1).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("jitter", [0.05, 0.15])
def test_maps_of_one_state_have_no_blocks(seed, jitter):
    one = assembly(("111111", 1.0), seed=seed)
    volumes = simulate(one, N, seed=seed, amplitude_jitter=jitter)["volumes"].values
    search = Search(volumes)
    assert search.packed.n_voxels > 500  # a rim that comes and goes, and noise
    found = search.find()
    assert found.n_blocks == 0
    assert (found.labels == -1).all()
    assert found.occupancy.shape == found.density.shape == found.present.shape == (N, 0)
    assert not found.core.any()


def shapes():
    """Parts, each with presence of its own: where they are, and how dense with and without."""
    corners = {
        "cube": ((2, 2, 2), (6, 6, 6), (0.0, 2.0)),
        "line": ((2, 15, 2), (1, 1, 12), (0.0, 2.0)),
        "sheet": ((12, 2, 2), (1, 15, 15), (0.0, 2.0)),
        "rim": ((20, 2, 2), (6, 6, 6), (0.95, 1.05)),
        "large": ((20, 15, 15), (7, 7, 7), (0.5, 1.5)),
    }
    return {
        name: (np.argwhere(np.ones(sides, dtype=bool)) + np.array(corner), levels)
        for name, (corner, sides, levels) in corners.items()
    }


def test_groups_that_are_no_blocks_are_counted():
    rng = np.random.default_rng(0)
    parts = shapes()
    present = rng.random((N, len(parts))) < 0.5
    columns = [
        np.where(here[:, None], high, low) + 0.01 * rng.standard_normal((N, len(places)))
        for (places, (low, high)), here in zip(parts.values(), present.T, strict=True)
    ]
    coordinates = np.concatenate([places for places, _ in parts.values()]).astype(np.int32)
    matrix = np.concatenate(columns, axis=1).astype(np.float32)
    packed = pack(matrix > 1)
    edges = associations(packed, coordinates=coordinates, least_distance=3.0)
    ones = np.ones(N)
    search = partial(
        search_blocks,
        edges,
        Densities(matrix, np.arange(matrix.shape[1]), coordinates, ones, ones),
        occupied=packed,
        tests=Association(packed.margins, N, *edges.alpha.values),
        near=near_pairs(coordinates, 3.0, matrix.shape[1]),
    )
    truth = np.repeat(np.arange(len(parts)), [len(places) for places, _ in parts.values()])
    # A ball of radius 3 has 114 voxels; one of half that radius is in no sheet.
    found = search()
    assert found.dropped == {"small": 1, "thin": 1, "flickering": 1}
    expected = np.select([truth == 4, truth == 0], [0, 1], default=-1)
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_array_equal(found.present, present[:, [4, 0]])
    np.testing.assert_allclose(found.contrast, [1, 2], rtol=0.02)
    # Of a size that is asked for, thin ones count too.
    asked = search(min_voxels=12)
    assert asked.dropped == {"small": 0, "thin": 0, "flickering": 1}
    assert np.bincount(asked.labels[asked.labels >= 0]).tolist() == [343, 225, 216, 12]
    none = search(min_voxels=344)
    assert (none.n_blocks, none.dropped["small"]) == (0, 5)


def test_voxels_whose_edges_were_lost_join_their_block_again():
    search, found = made(0)[2:]
    lost = np.flatnonzero(found.labels == 1)[::20]
    kept = search.edges.copy(deep=True)
    for tail in kept["neighbour"].values:
        tail[lost] = -1
        tail[np.isin(tail, lost)] = -1
    again = search.find(edges=kept)
    assert not again.core[lost].any()
    np.testing.assert_array_equal(again.labels, found.labels)
    # None is associated with every voxel of the block.
    without = search.find(edges=kept, expand_fraction=1.0)
    assert (without.labels[lost] == -1).mean() > 0.5
    np.testing.assert_array_equal(without.core, again.core)


def test_any_chunking_gives_the_same_blocks():
    search, found = made(0)[2:]
    lazy = da.from_array(search.densities.matrix, chunks=(7, 501))
    again = search.find(densities=replace(search.densities, matrix=lazy))
    for name in ("labels", "core", "occupancy", "density", "present", "cuts", "contrast", "phi"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
