"""Scripts that show states, or blocks, in UCSF ChimeraX, in the colours of the figures.

ChimeraX runs a script in the folder that it lies in, so that the whole folder can be moved. The
commands are those of the user guide: https://www.cgl.ucsf.edu/chimerax/docs/user/index.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emhet_dask.report.block_parts import block_colour
from emhet_dask.report.palette import state_colour

__all__ = ["BlockMap", "StateMap", "write_blocks_chimerax", "write_chimerax"]


@dataclass(frozen=True)
class StateMap:
    """The map of one state.

    Attributes
    ----------
    state : int
        Its number, which gives it its colour.
    file : str
        Relative to the folder of the script.
    level : float
        Density at which the surface is drawn.
    """

    state: int
    file: str
    level: float


@dataclass(frozen=True)
class BlockMap:
    """The map of one block.

    Attributes
    ----------
    block : int
        Its number, from 1, which gives it its colour.
    file : str
        Relative to the folder of the script.
    level : float
        Value at which the surface is drawn: 0.5 of a map that is 1 inside.
    """

    block: int
    file: str
    level: float = 0.5


def write_chimerax(
    path: str | Path,
    *,
    states: Sequence[StateMap],
    mask: str | None = None,
    series: Sequence[str] = (),
    series_level: float | None = None,
    noun: str = "state",
    title: str = "",
    most: int = 40,
) -> None:
    """Write a ChimeraX command script.

    Parameters
    ----------
    path : str or Path
        Such as ``OUT/open.cxc``.
    states : sequence of StateMap
    mask : str, optional
        File of the mask, relative to the folder of the script.
    series : sequence of str
        Folders with the maps along a component, relative to the folder of the script; how to play
        them is written as comments.
    series_level : float, optional
        Density at which these are drawn.
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
    title : str
        What the states are of, for the first line.
    most : int
        Of more states the others are written as comments: a laptop holds some dozens of maps.
    """
    opened, others = states[:most], states[most:]
    n = len(opened)
    lines = [
        f"# {_plain(noun).capitalize()}s of {_plain(title) or 'this folder'}, for UCSF ChimeraX.",
        "# Open it in an empty session: models are numbered from 1, in this order.",
        "",
    ]
    for model, state in enumerate(opened, start=1):
        lines += [
            _open(state, noun),
            f"volume #{model} style surface step 1 level {state.level:.6g} "
            f"color {state_colour(state.state)}",
        ]
    if mask is not None:
        lines += [
            f'open {_quoted(mask)} name "mask"',
            f"volume #{n + 1} style surface step 1 level 0.5 color #999999",
            f"transparency #{n + 1} 80",
        ]
    if n > 1:
        lines += ["", "# One at a time; the slider below goes through them.", _hide(2, n)]
    lines += ["", "lighting soft", "set bgColor white", "view"]
    if others:
        lines += ["", "# The others:", *(f"# {_open(state, noun)}" for state in others)]
    if n > 1:
        lines += ["", "# All side by side:", f"# show #1-{n} models", f"# tile #1-{n}"]
    if mask is not None:
        lines += ["", "# Without the mask:", f"# hide #{n + 1} models"]
    for folder in series:
        lines += ["", *_series(folder, series_level)]
    if n > 1:
        # Last, because it needs the graphical interface, and an error would end the script.
        lines += ["", f"mseries slider #1-{n}"]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def write_blocks_chimerax(
    path: str | Path,
    *,
    blocks: Sequence[BlockMap],
    mean_map: str,
    mean_level: float,
    title: str = "",
    most: int = 60,
) -> None:
    """Write a ChimeraX command script that shows blocks within the transparent mean map.

    Parameters
    ----------
    path : str or Path
        Such as ``OUT/open.cxc``.
    blocks : sequence of BlockMap
        The largest first.
    mean_map : str
        File of the mean map, relative to the folder of the script.
    mean_level : float
        Density at which it is drawn.
    title : str
        What the blocks are of, for the first line.
    most : int
        Further blocks are written as comments: a laptop holds some dozens of maps.
    """
    opened, others = blocks[:most], blocks[most:]
    lines = [
        f"# Blocks of {_plain(title) or 'this folder'}, for UCSF ChimeraX.",
        "# Open it in an empty session: model 1 is the mean map, the blocks follow in their order.",
        "",
        f'open {_quoted(mean_map)} name "mean map"',
        f"volume #1 style surface step 1 level {mean_level:.6g} color #999999",
        "transparency #1 75",
    ]
    for model, block in enumerate(opened, start=2):
        lines += [
            _open_block(block),
            # Smoothed, since a mask has the steps of its voxels.
            f"volume #{model} style surface step 1 level {block.level:.6g} "
            f"color {block_colour(block.block)} surfaceSmoothing true",
        ]
    lines += ["", "lighting soft", "set bgColor white", "view"]
    if others:
        lines += ["", "# The others:", *(f"# {_open_block(block)}" for block in others)]
    lines += ["", "# Without the mean map:", "# hide #1 models"]
    if opened:
        last = len(opened) + 1
        first = opened[0].block
        lines += ["", f"# Block {first} alone:", f"# {_hide(2, last)}", "# show #2 models"]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _open_block(block: BlockMap) -> str:
    return f'open {_quoted(block.file)} name "block {block.block}"'


def _open(state: StateMap, noun: str) -> str:
    return f'open {_quoted(state.file)} name "{_plain(noun)} {state.state}"'


def _series(folder: str, level: float | None) -> list[str]:
    lines = [
        f"# Motion along {_plain(Path(folder).name)}: in an empty session (close session), enter",
        f"# open {_quoted(folder + '/*.mrc')} vseries true",
    ]
    if level is not None:
        lines.append(f"# volume #1 style surface step 1 level {level:.6g}")
    return [*lines, "# vseries play #1 loop true direction oscillate maxFrameRate 5"]


def _hide(first: int, last: int) -> str:
    return f"hide #{first}-{last} models" if last > first else f"hide #{first} models"


def _plain(text: str) -> str:
    """Return text that cannot end a comment or a command."""
    return re.sub(r"[\x00-\x1f\x7f;\"']", " ", text).strip()


def _quoted(file: str) -> str:
    """Return a file name as one word of a command."""
    file = re.sub(r"[\x00-\x1f\x7f\"]", "", file)
    return f'"{file}"' if re.search(r"[^\w./*-]", file) else file
