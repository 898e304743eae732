"""A script that shows the states in UCSF ChimeraX, in the colours of the figures.

ChimeraX runs a script in the folder that it lies in, so that the whole folder can be moved. The
commands are those of the user guide: https://www.cgl.ucsf.edu/chimerax/docs/user/index.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emhet_dask.report.palette import state_colour

__all__ = ["StateMap", "write_chimerax"]


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
