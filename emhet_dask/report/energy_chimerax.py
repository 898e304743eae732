"""A ChimeraX script that plays the maps along a path."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["write_path_chimerax"]


def write_path_chimerax(
    path: str | Path, *, n_maps: int, level: float, ends: tuple[str, str]
) -> None:
    """Write a ChimeraX command script that opens the maps beside it as one series and plays it.

    Parameters
    ----------
    path : path
        Such as ``OUT/paths/path_0_1/open.cxc``; ``vol_000.mrc``, … lie beside it.
    n_maps : int
    level : float
        Density at which the surface is drawn.
    ends : (str, str)
        What is at the start and at the end, for the first line.
    """
    first, last = (re.sub(r"[\x00-\x1f\x7f;\"']", " ", end) for end in ends)
    lines = [
        f"# Maps along the lowest path from {first} to {last}, for UCSF ChimeraX.",
        "# Open it in an empty session.",
        "",
        "open vol_*.mrc vseries true",
        f"volume #1 style surface step 1 level {level:.6g} color #0072b2",
        "lighting soft",
        "set bgColor white",
        "view",
        "",
        "# As a movie file:",
        "# movie record",
        f"# vseries play #1 range 1,{n_maps} maxFrameRate 8; wait {10 * n_maps}",
        "# movie encode path.mp4 framerate 8",
        "",
        "# Blended from one map to the next, in an empty session (close session):",
        "# open vol_*.mrc",
        f"# volume morph #1-{n_maps} frames {10 * n_maps}",
        "",
        # Last, because it goes on until it is stopped.
        "vseries play #1 loop true direction oscillate maxFrameRate 5",
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
