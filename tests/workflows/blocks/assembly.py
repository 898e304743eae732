"""The assembly whose blocks are searched, and what tests read of its maps and its blocks."""

import numpy as np
import pytest

from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume

N, BOX, APIX, RESOLUTION, SUBUNITS = 80, 20, 9.6, 24.0, 4
SCREEN = {"screen_thresholds": (1.25,), "screen_p": (1e-4,)}


def read(path):
    return read_volume(read_header(path))


def volumes_of(folder):
    return np.stack([read(path) for path in sorted((folder / "maps").glob("vol_*.mrc"))])


def names_of(found):
    return [f"block_{number:03d}" for number in range(1, found.n_blocks + 1)]


def refused(blocks, *arguments, match, **options):
    with pytest.raises(InputError, match=match) as error:
        blocks(*arguments, **options)
    assert "\n" not in str(error.value)
