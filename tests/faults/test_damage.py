"""Stored intermediates that were cut short are named, and what mends them gives the same arrays."""

import re
import shutil

import pytest

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.workflows.stages import map_scores, pairs, voxel_pairs
from tests.faults.conftest import SETTINGS
from tests.faults.endings import assert_same

pytestmark = pytest.mark.slow

# A group, an array of it that is cut short, what is made of it (gone too, so that the array is read
# again), and how much is left.
GROUPS = [
    ("landscape", "results.zarr/mask", "mask", "results.zarr/matrix", 0.5),
    ("landscape", "results.zarr/pca", "scores", "results.zarr/tree", 0.5),
    ("landscape", "results.zarr/tree", "linkage", "results.zarr/clusters", 0),
    ("similarity", "similarity.zarr", "similarity", "results.zarr/tree", 0.5),
    ("similarity", "similarity.zarr", "similarity", "results.zarr/tree", 0),
    ("similarity", "results.zarr/tree", "linkage", "results.zarr/clusters", 0.5),
    ("blocks", "results.zarr/thresholds", "threshold", "results.zarr/occupied", 0.5),
    ("blocks", "results.zarr/occupied", "level_0/bits", "results.zarr/voxel_pairs", 0.5),
    ("blocks", "results.zarr/occupied", "level_0/bits", "results.zarr/voxel_pairs", 0),
    ("blocks", "results.zarr/voxel_pairs", "level_0/neighbour", "results.zarr/blocks", 0),
    ("map", "results.zarr/read_outs", "read_out", "results.zarr/scores", 0.5),
    ("map", "results.zarr/scores", "particle_scores", "results.zarr/particles", 0),
]


@pytest.fixture(scope="module")
def client():
    with emhet_dask.connect("local") as client:
        yield client


@pytest.fixture
def again(small, sources, undisturbed, client):
    """Return what makes ``undisturbed / name`` at another place."""

    def make(name, output):
        options = {"output": str(output), "cluster": client, "quiet": True}
        if name == "map":
            sketch = str(undisturbed / "sketch")
            return emhet_dask.map(str(sources / "run"), 3, landscape=sketch, **options)
        store = str(undisturbed / "ingest")
        return getattr(emhet_dask, name)(store, **SETTINGS[name], **options)

    return make


def cut_short(folder, *, to):
    """Cut the largest piece of an array in a folder; return its name."""
    pieces = [path for path in folder.rglob("c/**/*") if path.is_file()]
    largest = max(pieces, key=lambda path: (path.stat().st_size, str(path)))
    with largest.open("r+b") as file:
        file.truncate(int(to * largest.stat().st_size))
    return largest.relative_to(folder).as_posix()


@pytest.mark.parametrize(("name", "group", "array", "after", "to"), GROUPS)
def test_a_group_cut_short(name, group, array, after, to, again, undisturbed, tmp_path):
    out = tmp_path / name
    shutil.copytree(undisturbed / name, out)
    cut_short(out / group / array, to=to)
    shutil.rmtree(out / after)
    with pytest.raises(InputError) as caught:
        again(name, out)
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith(f"{out / group}: damaged, ")
    assert told.endswith("remove that folder, and the same command makes it again")
    shutil.rmtree(out / group)
    again(name, out)
    assert_same(out, undisturbed / name)


@pytest.mark.parametrize(
    ("name", "module", "end", "part"),
    [
        ("similarity", pairs, "finish_pairs", "similarity.zarr/block_histogram"),
        ("blocks", voxel_pairs, "finish_edges", "results.zarr/voxel_pairs/level_0/tile_phi"),
        ("map", map_scores, "_run", "results.zarr/scores/particle_scores"),
    ],
)
def test_a_part_cut_short_of_a_run_that_was_stopped(
    name, module, end, part, again, undisturbed, tmp_path, monkeypatch
):
    out = tmp_path / name
    finish = getattr(module, end)

    def stopped(*arguments, **options):
        if end == "_run":
            finish(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, end, stopped)
    with pytest.raises(KeyboardInterrupt):
        again(name, out)
    monkeypatch.setattr(module, end, finish)
    (workspace,) = (out / ".staging").iterdir()
    cut_short(workspace / part, to=0.5)
    with pytest.raises(InputError) as caught:
        again(name, out)
    told = str(caught.value)
    assert "\n" not in told
    # The stage that was under way, or what it finished now from its parts.
    pieces = rf"\.staging/{workspace.name}|results\.zarr/scores"
    found = re.match(rf"{re.escape(str(out))}/({pieces}): damaged, ", told)
    assert found, told
    shutil.rmtree(out / found[1])
    again(name, out)
    assert_same(out, undisturbed / name)
