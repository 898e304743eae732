"""Classification and reconstruction of images whose workers, or whose command, are killed."""

import json
import shutil
from pathlib import Path

import pytest

import emhet_dask
from tests.fake_particles import PIXEL, fake_particles, write_particles
from tests.faults.endings import assert_same, end, start, wait_until
from tests.faults.struck_images import make_small

pytestmark = pytest.mark.slow

STRUCK = Path(__file__).with_name("struck_images.py")
BOX = 24
QUICK = {"components": 2, "restarts": 1, "limit_resolution": 4 * PIXEL}
MODES = {
    "plain": {"iterations": 2},
    "local": {"iterations": 1, "local_search": 6.0, "offset_range": 2.0},
    "global": {"iterations": 2, "global_search": 25.0, "offset_range": 2.0},
}
# Stages, and parts of iterations.
PARTS = {
    "plain": {"images", "consensus", "start", "add_up", "judge"},
    "local": {"search_poses", "add_up", "judge", "find_consensus"},
    "global": {"search_everywhere", "search_poses", "find_consensus"},
}
PATIENCE = 500


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Particles with states and wrong poses, and a map of all of them to begin with."""
    folder = tmp_path_factory.mktemp("images")
    write_particles(folder, fake_particles(160, box=BOX, snr=2.0, seed=3))
    true = emhet_dask.reconstruct(
        str(folder / "particles.star"), output=str(folder / "map"), quiet=True
    )
    shutil.copy(next(Path(true.folder).rglob("*.mrc")), folder / "ref.mrc")
    return folder


def options(mode, images):
    given = {**QUICK, **MODES[mode]}
    if mode == "global":
        given["ref"] = str(images / "ref.mrc")
    return given


def words(mode, images, output):
    """Return the words of the command."""
    flags = []
    for name, value in options(mode, images).items():
        flags += [f"--{name.replace('_', '-')}", str(value)]
    star = images / "particles.star"
    return ["class3d", "run", star, "--k", "2", "-o", output, *flags, "-q"]


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    """Return what makes the folder of a mode, once, as threads of one process do."""
    made = {}

    def make(mode):
        if mode not in made:
            made[mode] = tmp_path_factory.mktemp(mode) / "job001"
            with pytest.MonkeyPatch.context() as patch:
                make_small(patch.setattr)
                emhet_dask.class3d_run(
                    str(images / "particles.star"),
                    output=str(made[mode]),
                    k=2,
                    quiet=True,
                    **options(mode, images),
                )
        return made[mode]

    return make


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_killed_in_each_part_of_an_iteration(mode, images, undisturbed, tmp_path):
    expected = undisturbed(mode)
    out = tmp_path / "job001"
    command = words(mode, images, out)
    ended = end(start(STRUCK, "SIGKILL", -1, *command, "--cluster", "local:2"), seconds=PATIENCE)
    assert ended.status == 0, ended.err
    assert set(json.loads(ended.out.splitlines()[-1])) >= PARTS[mode]
    assert "Traceback" not in ended.err
    assert ended.left == []
    assert_same(out, expected)


# The second iteration of the last searches near the poses that the first one found.
@pytest.mark.parametrize("mode", ["plain", "global"])
def test_the_command_killed_in_an_iteration_goes_on(mode, images, undisturbed, tmp_path):
    expected = undisturbed(mode)
    out = tmp_path / "job001"
    command = [*words(mode, images, out), "--cluster", "local"]
    first, last = (f"run_it{n:03d}_model.star" for n in (1, MODES[mode]["iterations"]))
    begun = "run_it001_model.star" if first != last else "start.zarr"
    running = start(STRUCK, "SIGKILL", 0, *command)
    wait_until(lambda: (out / begun).exists() or running.poll() is not None, seconds=PATIENCE)
    running.kill()
    assert end(running).left == []
    assert not (out / last).exists()
    written = (out / begun).stat().st_mtime_ns
    ended = end(start(STRUCK, "SIGKILL", 0, *command), seconds=PATIENCE)
    assert ended.status == 0, ended.err
    assert (out / begun).stat().st_mtime_ns == written
    assert_same(out, expected)


def test_a_worker_killed_while_maps_are_reconstructed(images, tmp_path):
    expected, out = tmp_path / "calm" / "maps", tmp_path / "struck" / "maps"
    command = ["reconstruct", images / "particles.star", "-q"]
    for folder, times, cluster in ((expected, 0, "local"), (out, -1, "local:2")):
        words = [*command, "-o", folder, "--cluster", cluster]
        ended = end(start(STRUCK, "SIGKILL", times, *words), seconds=PATIENCE)
        assert ended.status == 0, ended.err
        assert "Traceback" not in ended.err
        assert ended.left == []
    assert "state_000" in json.loads(ended.out.splitlines()[-1])
    assert_same(out, expected)
