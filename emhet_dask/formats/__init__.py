"""Files of other programs, read and written with NumPy and pandas alone.

`mrc` holds maps, `sources` finds them behind whatever a user may name, and `grid` judges whether
they go together; `star`, `relion`, `cryodrgn` and `cryosparc` read what those programs wrote, and
`tables` the CSV files of the user's own. `classification` makes one thing of the classes that
RELION and cryoSPARC give, `matching` finds the particles that several classifications share,
`relion_model` reads what RELION notes at each iteration, and `where` applies conditions to columns.
Everything read here is untrusted: nothing is unpickled but arrays and plain containers, no length
in a header is believed before the size of the file has been asked, and what cannot be read is an
`InputError` of one line.

`star` brings pandas and starfile with it, a quarter of a second: as ``formats.star`` it is imported
when a STAR file is met, and not before.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "star":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.star")
