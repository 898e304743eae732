"""What the results say, in the words that a reader sees first."""

from __future__ import annotations

from emhet_dask.report.style import counted

__all__ = ["headline", "verdict_warnings"]


def headline(
    *,
    n_volumes: int,
    n_clusters: int,
    separate_states: bool,
    n_particles: float | None = None,
    automatic_n_clusters: int | None = None,
) -> str:
    """Return the result in one line.

    Parameters
    ----------
    n_volumes, n_clusters : int
    separate_states : bool
        Whether the data show separate states.
    n_particles : float, optional
        Particles that the volumes stand for.
    automatic_n_clusters : int, optional
        The number that the data suggest, where the user asked for another.

    Examples
    --------
    >>> headline(n_volumes=1000, n_clusters=28, separate_states=True)
    '1,000 volumes, 28 separate states'
    >>> headline(n_volumes=20, n_clusters=3, separate_states=False, n_particles=9021)
    '20 volumes (9,021 particles), no separate states: cut into 3 clusters'
    """
    subject = counted(n_volumes, "volume")
    if n_particles is not None:
        subject += f" ({counted(n_particles, 'particle')})"
    if not separate_states:
        if n_clusters == 1:
            return f"{subject}, one state"
        return f"{subject}, no separate states: cut into {n_clusters} clusters"
    if automatic_n_clusters is not None and automatic_n_clusters != n_clusters:
        return (
            f"{subject}, cut into {counted(n_clusters, 'cluster')} as asked; "
            f"the data suggest {counted(automatic_n_clusters, 'separate state')}"
        )
    return f"{subject}, {counted(n_clusters, 'separate state')}"


def verdict_warnings(
    *,
    n_clusters: int,
    separate_states: bool,
    automatic_n_clusters: int | None = None,
    n_outliers: int = 0,
) -> list[str]:
    """Return what a reader must know before using the clusters as states.

    Parameters
    ----------
    n_clusters : int
    separate_states : bool
    automatic_n_clusters : int, optional
        The number that the data suggest, where the user asked for another.
    n_outliers : int
        Volumes unlike all others.
    """
    warnings = []
    if not separate_states and n_clusters > 1:
        warnings.append(
            f"The data show no separate states. The {n_clusters} clusters below only divide the "
            "volumes into groups of similar ones; another number of clusters would be as good. Do "
            "not report them as states. To see what varies, look at the principal components "
            "and at the maps along them."
        )
    if separate_states and automatic_n_clusters is not None and automatic_n_clusters != n_clusters:
        what = "merge some of these" if n_clusters < automatic_n_clusters else "split some of these"
        warnings.append(
            f"{counted(n_clusters, 'cluster')} were asked for, while the data suggest "
            f"{counted(automatic_n_clusters, 'separate state')}: the clusters {what}."
        )
    if n_outliers:
        one = n_outliers == 1
        warnings.append(
            f"{counted(n_outliers, 'volume')} {'is' if one else 'are'} unlike all others "
            f"(column ‘outlier’ of clusters/cluster_labels.csv) and {'was' if one else 'were'} no "
            "evidence for the number of states."
        )
    return warnings
