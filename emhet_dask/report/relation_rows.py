"""Tables of relations and of combinations, as a report shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

__all__ = ["relation_rows", "state_rows"]

# Rows on a page, which would be long with all of them.
_MOST_STATES = 20
_MOST_RELATIONS = 60
_WORDS = {
    "requires": "requires",
    "together": "always together with",
    "excludes": "excludes",
    "associated": "more often with",
    "opposed": "less often with",
    "independent": "independent of",
}


def relation_rows(relations: pd.DataFrame, *, noun: str = "block") -> pd.DataFrame:
    """Return the most significant relations, in words and numbers.

    Parameters
    ----------
    relations : pandas.DataFrame
        From `emhet_dask.analysis.relations.block_relations`.
    noun : str
        What is related.
    """
    first = relations.sort_values("p_adjusted", kind="stable").head(_MOST_RELATIONS)
    interval = [
        f"{low:,.3g} to {high:,.3g}"
        for low, high in zip(first["odds_low"], first["odds_high"], strict=True)
    ]
    return pd.DataFrame(
        {
            noun.capitalize(): first["block_a"],
            "Relation": [_WORDS[word] for word in first["relation"]],
            f"Other {noun}": first["block_b"],
            "Both": first["both"],
            "First only": first["a_only"],
            "Second only": first["b_only"],
            "Neither": first["neither"],
            "Odds ratio": first["odds_ratio"],
            "95% interval": interval,
            "p, corrected": [f"{p:.1e}" for p in first["p_adjusted"]],
        }
    )


def state_rows(states: pd.DataFrame, names: Sequence[str], *, noun: str = "block") -> pd.DataFrame:
    """Return the most frequent combinations of parts.

    Parameters
    ----------
    states : pandas.DataFrame
        From `emhet_dask.analysis.relations.state_table`.
    names : sequence of str
        Its columns of parts.
    noun : str
        What is combined.
    """
    first = states.head(_MOST_STATES)
    # Blocks are numbers; parts of the user's own may well be called block_003.
    called = np.array(
        [name.removeprefix("block_").lstrip("0") if noun == "block" else name for name in names]
    )
    shown = pd.DataFrame(
        {
            "State": first["state"],
            f"{noun.capitalize()}s present": [
                ", ".join(called[pattern]) or "none"
                for pattern in first[list(names)].to_numpy(dtype=bool)
            ],
            "Volumes": first["volumes"],
        }
    )
    if "particles" in first:
        shown["Particles"] = first["particles"].round().astype("Int64")
    return shown.assign(Share=[f"{share:.1%}" for share in first["fraction"]])
