"""Maps and latents of RECOVAR, 3DVA, 3DFlex and tomoDRGN: from their folders to particle lists."""

import pickle

import numpy as np
import pytest
from scipy.spatial import cKDTree

import emhet_dask
from emhet_dask.ensemble import open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.formats import cryosparc, star
from emhet_dask.formats.cryodrgn import read_indices
from emhet_dask.formats.mrc import write_map

N, BOX, N_PARTICLES = 12, 16, 300
RNG = np.random.default_rng(5)
# Two states, apart along the first latent.
CENTRES = np.column_stack([np.repeat([-4.0, 4.0], N // 2), RNG.normal(size=(N, 2))])
LATENTS = CENTRES[RNG.integers(0, N, N_PARTICLES)] + RNG.normal(size=(N_PARTICLES, 3))
NEAREST = cKDTree(CENTRES).query(LATENTS)[1]


def write_volumes(folder, pattern):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    grid = np.indices((BOX, BOX, BOX)) - BOX // 2
    core = np.exp(-((grid**2).sum(axis=0)) / 18)
    arm = np.exp(-(((grid - np.array([4, 0, 0])[:, None, None, None]) ** 2).sum(axis=0)) / 6)
    for number, centre in enumerate(CENTRES):
        volume = core + (centre[0] > 0) * arm + 0.02 * rng.standard_normal(core.shape)
        path = folder / pattern.format(number)
        write_map(path, volume.astype(np.float32), voxel_size_angstrom=4.0)
    return folder


def write_star(path, count):
    rows = "\n".join(f"{row + 1:06d}@stack.mrcs 1" for row in range(count))
    path.write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300\n\n"
        "# version 30001\n\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n"
        f"{rows}\n\n"
    )
    return str(path)


def write_components(path, latents, uids):
    """Write particles as 3D Variability and 3D Flex do."""
    fields = [("uid", "<u8"), ("blob/idx", "<u4")]
    fields += [(f"components_mode_{k}/value", "<f4") for k in range(latents.shape[1])]
    records = np.zeros(len(uids), fields)
    records["uid"] = uids
    for k, values in enumerate(latents.T):
        records[f"components_mode_{k}/value"] = values
    cryosparc.write_particles(path, records)
    return str(path)


@pytest.fixture
def ingest(client, tmp_path):
    def run(*sources, **options):
        return open_ensemble(
            emhet_dask.ingest(
                [str(source) for source in sources],
                output=str(tmp_path / "e.zarr"),
                **{"quiet": True, "cluster": client, **options},
            ).path
        )

    return run


@pytest.fixture
def frames(tmp_path):
    return write_volumes(tmp_path / "frames", "frame_{:03d}.mrc")


def table(tmp_path, name, values):
    np.save(tmp_path / name, values)
    return str(tmp_path / name)


def check_nearest(ensemble, latents=LATENTS, nearest=NEAREST):
    found = ensemble.dataset
    np.testing.assert_array_equal(found["particle_volume"], nearest)
    np.testing.assert_array_equal(ensemble.weights, np.bincount(nearest, minlength=N))
    np.testing.assert_allclose(found["latent"], CENTRES, rtol=1e-6)
    np.testing.assert_allclose(found["particle_latent"], latents, rtol=1e-6)


def test_recovar_from_its_folders_to_particle_lists(ingest, tmp_path, client):
    folder = write_volumes(tmp_path / "analysis_3" / "kmeans", "center{:03d}.mrc")
    for path in sorted(folder.glob("center*.mrc"))[:2]:
        (folder / f"{path.stem}_half1_unfil.mrc").write_bytes(path.read_bytes())
    np.savetxt(folder / "centers.txt", CENTRES)
    # A row per particle of the file; those that --ind of RECOVAR left out are NaN.
    kept = np.sort(np.random.default_rng(2).permutation(400)[:N_PARTICLES])
    whole = np.full((kept.max() + 1, 3), np.nan)
    whole[kept] = LATENTS
    ensemble = ingest(
        folder / "center???.mrc",
        particle_latents=table(tmp_path, "latent_coords.npy", whole),
        particles=write_star(tmp_path / "p.star", 400),
    )
    check_nearest(ensemble)
    np.testing.assert_array_equal(ensemble.dataset["particle_index"], kept)

    out = str(tmp_path / "out")
    found = emhet_dask.landscape(
        ensemble.path, output=out, n_clusters=2, mask="none", cluster=client, quiet=True
    )
    state = found.labels[-1]
    expected = kept[NEAREST >= N // 2]
    names = [f"{row + 1:06d}@stack.mrcs" for row in expected]
    written = star.read_particles(f"{out}/clusters/cluster_{state:03d}_particles.star")
    assert written.particles["rlnImageName"].tolist() == names
    for name in ("s.star", "s.pkl"):
        emhet_dask.select(out, clusters=str(state), output=str(tmp_path / name), quiet=True)
    assert star.read_particles(tmp_path / "s.star").particles["rlnImageName"].tolist() == names
    np.testing.assert_array_equal(read_indices(tmp_path / "s.pkl"), expected)


def test_older_recovar_keeps_its_embeddings_in_one_pickle(ingest, tmp_path):
    folder = write_volumes(tmp_path / "traj000", "state{:03d}.mrc")
    np.savetxt(folder / "latent_coords.txt", CENTRES)
    embeddings = {"zs": {3: LATENTS, 2: LATENTS[:, :2], "3_noreg": LATENTS + 1}}
    (tmp_path / "embeddings.pkl").write_bytes(pickle.dumps(embeddings))
    check_nearest(ingest(folder, particle_latents=str(tmp_path / "embeddings.pkl")))


def test_tomodrgn_centres_are_rows_of_its_latents(ingest, tmp_path):
    folder = write_volumes(tmp_path / "kmeans12", "vol_{:03d}.mrc")
    latents = np.concatenate([CENTRES, LATENTS])
    np.savetxt(folder / "centers_ind.txt", np.arange(N), fmt="%d")
    (tmp_path / "z.pkl").write_bytes(pickle.dumps(latents) + pickle.dumps(latents * 0 - 1))
    ensemble = ingest(folder, particle_latents=str(tmp_path / "z.pkl"))
    check_nearest(ensemble, latents, np.concatenate([np.arange(N), NEAREST]))


@pytest.mark.slow
@pytest.mark.parametrize("particles", ["the same", "in another order and more"])
def test_cryosparc_components_are_joined_by_uid(ingest, tmp_path, frames, client, particles):
    rng = np.random.default_rng(3)
    uids = rng.permutation(10_000)[: N_PARTICLES + 50].astype(np.uint64)
    latents = write_components(tmp_path / "J7_particles.cs", LATENTS, uids[:N_PARTICLES])
    options = {}
    order = np.arange(N_PARTICLES)
    if particles != "the same":
        shuffled = rng.permutation(uids)
        options["particles"] = write_components(
            tmp_path / "refined.cs", np.zeros((len(uids), 1)), shuffled
        )
        order = np.argsort(shuffled)[np.searchsorted(np.sort(shuffled), uids[:N_PARTICLES])]
    np.savetxt(tmp_path / "frames.csv", CENTRES, delimiter=",", header="c0,c1,c2", comments="")
    ensemble = ingest(
        frames, latents=str(tmp_path / "frames.csv"), particle_latents=latents, **options
    )
    check_nearest(ensemble)
    np.testing.assert_array_equal(ensemble.dataset["particle_index"], order)

    out = str(tmp_path / "out")
    found = emhet_dask.landscape(
        ensemble.path, output=out, n_clusters=2, mask="none", cluster=client, quiet=True
    )
    expected = set(uids[:N_PARTICLES][NEAREST < N // 2].tolist())
    written = cryosparc.read_particles(f"{out}/clusters/cluster_{found.labels[0]:03d}_particles.cs")
    assert set(written["uid"].tolist()) == expected
    chosen = str(tmp_path / "chosen.cs")
    emhet_dask.select(out, clusters=str(found.labels[0]), output=chosen, quiet=True)
    assert set(cryosparc.read_particles(chosen)["uid"].tolist()) == expected


def test_labels_go_before_distances(ingest, tmp_path):
    folder = write_volumes(tmp_path / "kmeans12", "vol_{:03d}.mrc")
    labels = np.random.default_rng(4).integers(0, N, N_PARTICLES)
    ensemble = ingest(
        folder,
        labels=table(tmp_path, "labels.npy", labels),
        latents=table(tmp_path, "centres.npy", CENTRES),
        particle_latents=table(tmp_path, "z.npy", LATENTS),
    )
    check_nearest(ensemble, nearest=labels)
    with pytest.raises(InputError, match=r"z\.npy: 299 rows of latents, expected 300, one per"):
        ingest(
            folder,
            labels=table(tmp_path, "labels.npy", labels),
            particle_latents=table(tmp_path, "z.npy", LATENTS[1:]),
        )


def test_particles_of_a_subset(ingest, tmp_path, frames):
    chosen = np.sort(np.random.default_rng(6).permutation(350)[:N_PARTICLES])
    options = {
        "latents": table(tmp_path, "centres.npy", CENTRES),
        "particle_latents": table(tmp_path, "z.npy", LATENTS),
        "particles": write_star(tmp_path / "p.star", 350),
    }
    with pytest.raises(InputError, match=r"350 particles, but .*z\.npy is of 300; give --ind"):
        ingest(frames, **options)
    ensemble = ingest(frames, ind=table(tmp_path, "ind.npy", chosen), **options)
    check_nearest(ensemble)
    np.testing.assert_array_equal(ensemble.dataset["particle_index"], chosen)


@pytest.mark.parametrize(
    ("volumes", "particles", "message"),
    [
        (None, LATENTS, r"z\.npy: says where the particles are .* give --latents with one row"),
        (CENTRES[:, :2], LATENTS, r"v\.npy: latents of 2 dimensions, but .*z\.npy has 3"),
        (CENTRES[1:], LATENTS, r"v\.npy: 11 rows of latents, expected 12, one per volume$"),
        (LATENTS, None, r"300 rows .* expected 12, one per volume \(one per .*-latents\)"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(ingest, tmp_path, frames, volumes, particles, message):
    given = {"latents": ("v.npy", volumes), "particle_latents": ("z.npy", particles)}
    options = {
        option: table(tmp_path, name, values)
        for option, (name, values) in given.items()
        if values is not None
    }
    with pytest.raises(InputError, match=message) as refused:
        ingest(frames, **options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "e.zarr").exists()


def test_files_of_other_particles_are_refused(ingest, tmp_path, frames):
    latents = write_components(tmp_path / "J7.cs", LATENTS, np.arange(N_PARTICLES))
    other = write_components(tmp_path / "J8.cs", LATENTS, np.arange(N_PARTICLES) + 7)
    volumes = table(tmp_path, "centres.npy", CENTRES)
    with pytest.raises(InputError, match=r"J8\.cs: lacks 7 of the 300 particles of .*J7\.cs"):
        ingest(frames, latents=volumes, particle_latents=latents, particles=other)
    holes = LATENTS.copy()
    holes[:5] = np.nan
    with pytest.raises(InputError, match=r"ind\.npy: not needed, for .*z\.npy has NaN"):
        ingest(
            frames,
            latents=volumes,
            particle_latents=table(tmp_path, "z.npy", holes),
            ind=table(tmp_path, "ind.npy", np.arange(295)),
        )
