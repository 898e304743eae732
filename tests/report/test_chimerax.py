from __future__ import annotations

import re
from pathlib import Path

import pytest

from emhet_dask.report.block_parts import block_colour
from emhet_dask.report.chimerax import BlockMap, StateMap, write_blocks_chimerax, write_chimerax
from emhet_dask.report.palette import state_colour

NUMBER = r"-?\d+(\.\d+)?(e[-+]\d+)?"
FILE = r'([\w./*-]+|"[^"\n]+")'
# The forms of the user guide (https://www.cgl.ucsf.edu/chimerax/docs/user/index.html) in use.
COMMANDS = [
    rf"open {FILE} name \"[^\"\n]+\"",
    rf"open {FILE} vseries true",
    rf"volume #\d+ style surface step 1 level {NUMBER}( color #[0-9a-f]{{6}})?"
    r"( surfaceSmoothing true)?",
    r"transparency #\d+ \d+",
    r"(hide|show) #\d+(-\d+)? models",
    r"tile #\d+-\d+",
    r"lighting soft",
    r"set bgColor white",
    r"view",
    r"mseries slider #\d+-\d+",
    r"vseries play #1 loop true direction oscillate maxFrameRate 5",
]


def _commands(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def _states(n: int) -> list[StateMap]:
    return [StateMap(k, f"clusters/cluster_{k:03d}_mean.mrc", 0.01 * (k + 1)) for k in range(n)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "open.cxc"
    write_chimerax(
        path,
        states=_states(3),
        mask="mask.mrc",
        series=["pcs/pc1", "pcs/pc2"],
        series_level=1e-5,
        title="ribosomes.zarr",
    )
    return path


def test_every_line_is_a_command_or_a_comment(script: Path) -> None:
    lines = script.read_text().splitlines()
    for line in lines:
        bare = line.removeprefix("# ")
        prose = line.startswith("# ") and not re.match(
            r"(open|volume|vseries|show|hide|tile) ", bare
        )
        assert line == "" or prose or any(re.fullmatch(form, bare) for form in COMMANDS), line


def test_models_are_numbered_in_the_order_in_which_they_are_opened(script: Path) -> None:
    commands = _commands(script)
    opened = [line for line in commands if line.startswith("open ")]
    assert [re.search(r'name "(.*)"', line)[1] for line in opened] == [
        "state 0",
        "state 1",
        "state 2",
        "mask",
    ]
    for k in range(3):
        expected = f"volume #{k + 1} style surface step 1 level {0.01 * (k + 1):g}"
        assert f"{expected} color {state_colour(k)}" in commands
    assert "transparency #4 80" in commands
    assert "hide #2-3 models" in commands
    assert commands[-1] == "mseries slider #1-3"


def test_files_are_relative_to_the_script(script: Path) -> None:
    files = re.findall(r"open ([^\s\"]+)", script.read_text())
    assert files == [
        *(f"clusters/cluster_{k:03d}_mean.mrc" for k in range(3)),
        "mask.mrc",
        "pcs/pc1/*.mrc",
        "pcs/pc2/*.mrc",
    ]


def test_motions_are_comments_that_can_be_pasted(script: Path) -> None:
    text = script.read_text()
    assert "# open pcs/pc1/*.mrc vseries true\n# volume #1 style surface step 1 level 1e-05" in text


def test_one_state_needs_no_slider(tmp_path: Path) -> None:
    write_chimerax(tmp_path / "a.cxc", states=_states(1), noun="cluster")
    commands = _commands(tmp_path / "a.cxc")
    assert commands[0].endswith('name "cluster 0"')
    assert not any(line.startswith(("hide", "mseries")) for line in commands)


def test_of_many_states_some_are_opened(tmp_path: Path) -> None:
    write_chimerax(tmp_path / "a.cxc", states=_states(150), mask="mask.mrc")
    commands = _commands(tmp_path / "a.cxc")
    assert sum(line.startswith("open ") for line in commands) == 41
    assert (
        '# open clusters/cluster_149_mean.mrc name "state 149"' in (tmp_path / "a.cxc").read_text()
    )
    assert "transparency #41 80" in commands


def test_names_cannot_smuggle_in_commands(tmp_path: Path) -> None:
    write_chimerax(
        tmp_path / "a.cxc",
        states=[StateMap(0, 'my "maps"; close\nexit/a b.mrc', 0.5)],
        title="x\nexit",
    )
    commands = _commands(tmp_path / "a.cxc")
    assert commands[0] == 'open "my maps; closeexit/a b.mrc" name "state 0"'
    assert not any(re.match(r"exit|close", line) for line in commands)


@pytest.fixture
def blocks_script(tmp_path: Path) -> Path:
    path = tmp_path / "open.cxc"
    write_blocks_chimerax(
        path,
        blocks=[BlockMap(k, f"block_{k:03d}.mrc") for k in (1, 2, 3)],
        mean_map="mean.mrc",
        mean_level=0.0125,
        title="ribosomes.zarr",
    )
    return path


def test_every_line_of_the_blocks_is_a_command_or_a_comment(blocks_script: Path) -> None:
    for line in blocks_script.read_text().splitlines():
        bare = line.removeprefix("# ")
        prose = line.startswith("# ") and not re.match(r"(open|volume|show|hide) ", bare)
        assert line == "" or prose or any(re.fullmatch(form, bare) for form in COMMANDS), line


def test_blocks_follow_the_transparent_mean_map_in_their_colours(blocks_script: Path) -> None:
    commands = _commands(blocks_script)
    opened = [line for line in commands if line.startswith("open ")]
    assert opened == [
        'open mean.mrc name "mean map"',
        *(f'open block_{k:03d}.mrc name "block {k}"' for k in (1, 2, 3)),
    ]
    assert commands[1].startswith("volume #1 style surface step 1 level 0.0125 ")
    assert "transparency #1 75" in commands
    for k in (1, 2, 3):
        expected = f"volume #{k + 1} style surface step 1 level 0.5 color {block_colour(k)}"
        assert f"{expected} surfaceSmoothing true" in commands


def test_of_many_blocks_some_are_opened_and_names_smuggle_nothing_in(tmp_path: Path) -> None:
    write_blocks_chimerax(
        tmp_path / "a.cxc",
        blocks=[BlockMap(k, f'a "b"\nexit/{k}.mrc') for k in range(1, 100)],
        mean_map="mean map.mrc",
        mean_level=1e-5,
    )
    commands = _commands(tmp_path / "a.cxc")
    assert sum(line.startswith("open ") for line in commands) == 61
    assert commands[0] == 'open "mean map.mrc" name "mean map"'
    assert not any(line.startswith("exit") for line in commands)


def test_no_block_leaves_the_mean_map(tmp_path: Path) -> None:
    write_blocks_chimerax(tmp_path / "a.cxc", blocks=[], mean_map="mean.mrc", mean_level=1.0)
    assert sum(line.startswith("open ") for line in _commands(tmp_path / "a.cxc")) == 1
