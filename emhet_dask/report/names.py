"""Names of maps that fit where they are written."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LETTER_INCHES", "shortened"]

# Mean width of a letter at 7 points.
LETTER_INCHES = 0.061


def shortened(names: Sequence[str], *, most: int = 30) -> list[str]:
    """Return names of at most so many letters, with … in the place of what was left out.

    Different names stay different where that is possible: of `job085_run_it025_class001` and its
    like the end tells them apart, of others the beginning.

    Examples
    --------
    >>> shortened(["short", "run_it025_class001_sharpened"], most=16)
    ['short', 'run_i…_sharpened']
    >>> shortened(["class001_sharpened_masked", "class002_sharpened_masked"], most=16)
    ['class001_s…asked', 'class002_s…asked']
    """
    distinct = len(set(names))
    found: list[str] = []
    for share in (0.65, 0.35, 1.0, 0.0):
        tail = round(share * (most - 1))
        cut = [_cut(name, most, tail) for name in names]
        if not found or len(set(cut)) > len(set(found)):
            found = cut
        if len(set(found)) == distinct:
            break
    # Between two of these Matplotlib would read a formula.
    return [name.replace("$", r"\$") for name in found]


def _cut(name: str, most: int, tail: int) -> str:
    if len(name) <= most:
        return name
    return f"{name[: most - 1 - tail]}…{name[len(name) - tail :]}"
