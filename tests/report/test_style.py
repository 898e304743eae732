from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

from emhet_dask.report.style import DPI, counted, new_figure, panel, save, styled, to_png


def _drawing():
    figure = new_figure(width_inches=4, height_inches=3, title="A title", note="A note")
    axes = panel(figure, left_inches=1, top_inches=0.5, width_inches=2, height_inches=1.5)
    axes.plot([0, 1])
    return figure


def test_same_figure_same_bytes(tmp_path: Path) -> None:
    save(_drawing(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == to_png(_drawing())


def test_size_in_pixels_is_inches_times_resolution() -> None:
    width, height = struct.unpack(">II", to_png(_drawing())[16:24])
    assert (width, height) == (4 * DPI, 3 * DPI)


def test_panel_lies_where_it_was_put() -> None:
    bounds = _drawing().axes[0].get_position().bounds
    expected = (1 / 4, 1 - (0.5 + 1.5) / 3, 2 / 4, 1.5 / 3)
    assert all(abs(a - b) < 1e-12 for a, b in zip(bounds, expected, strict=True))


def test_settings_of_the_user_neither_change_nor_matter() -> None:
    @styled
    def font_size() -> float:
        return float(mpl.rcParams["font.size"])

    ours = font_size()
    with mpl.rc_context({"font.size": 33, "savefig.bbox": "tight"}):
        assert font_size() == ours
        assert mpl.rcParams["font.size"] == 33
        assert struct.unpack(">II", to_png(_drawing())[16:24]) == (4 * DPI, 3 * DPI)


def test_pyplot_is_never_imported() -> None:
    # Its figures live until they are closed, and its backend may want a screen.
    code = "import sys, emhet_dask.report; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_counted() -> None:
    assert counted(0, "volume") == "0 volumes"
    assert counted(1.2, "volume") == "1 volume"
    assert counted(1234567, "particle") == "1,234,567 particles"
