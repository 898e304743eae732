"""What the results say, in the words that a reader sees first."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.report.style import counted

__all__ = ["FEWEST_TO_TELL", "Remark", "headline", "verdict_warnings"]


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
    if n_volumes < FEWEST_TO_TELL:
        return f"{subject}, too few to tell states: cut into {counted(n_clusters, 'cluster')}"
    if not separate_states:
        if n_clusters == 1 and automatic_n_clusters in {None, 1}:
            return f"{subject}, one state"
        if n_clusters == 1:
            return f"{subject}, cut into 1 cluster as asked"
        return f"{subject}, no separate states: cut into {n_clusters} clusters"
    if automatic_n_clusters is not None and automatic_n_clusters != n_clusters:
        return (
            f"{subject}, cut into {counted(n_clusters, 'cluster')} as asked; "
            f"the data suggest {counted(automatic_n_clusters, 'separate state')}"
        )
    return f"{subject}, {counted(n_clusters, 'separate state')}"


# Fewer volumes cannot show that there is nothing between their groups.
FEWEST_TO_TELL = 8
_SEE_COMPONENTS = "To see what varies, look at the principal components and at the maps along them."


@dataclass(frozen=True)
class Remark:
    """Something that a reader must know.

    Attributes
    ----------
    text : str
    serious : bool
        Whether the results mislead a reader who overlooks it.
    """

    text: str
    serious: bool


def verdict_warnings(
    *,
    n_clusters: int,
    separate_states: bool,
    automatic_n_clusters: int | None = None,
    n_outliers: int = 0,
    n_volumes: int | None = None,
    advice: str = _SEE_COMPONENTS,
) -> list[Remark]:
    """Return what a reader must know before taking the clusters for states.

    Parameters
    ----------
    n_clusters : int
    separate_states : bool
    automatic_n_clusters : int, optional
        The number that the data suggest, where the user asked for another.
    n_outliers : int
        Volumes unlike all others.
    n_volumes : int, optional
        All of them: of few, nothing can be said.
    advice : str
        Where to look instead, if the clusters are no states.
    """
    remarks = []
    if n_volumes is not None and n_volumes < FEWEST_TO_TELL:
        text = (
            f"{counted(n_volumes, 'volume')} cannot show whether there are separate states. "
            "Clusters are groups of similar volumes."
        )
        remarks.append(Remark(text, serious=False))
    elif not separate_states and n_clusters > 1:
        text = (
            f"The data show no separate states. The {n_clusters} clusters below only divide the "
            "volumes into groups of similar ones; another number of clusters would be as good. Do "
            f"not report them as states. {advice}"
        )
        remarks.append(Remark(text, serious=True))
    if separate_states and automatic_n_clusters not in {None, n_clusters}:
        suggested = int(automatic_n_clusters or 0)
        text = (
            f"{counted(n_clusters, 'cluster')} were asked for, while the data suggest "
            f"{counted(suggested, 'separate state')}: the clusters "
            f"{'merge' if n_clusters < suggested else 'split'} some of these."
        )
        remarks.append(Remark(text, serious=False))
    if n_outliers:
        were = "was" if n_outliers == 1 else "were"
        text = (
            f"{counted(n_outliers, 'volume')} {were} unlike all others (column ‘outlier’ of "
            f"clusters/cluster_labels.csv) and {were} no evidence for the number of states."
        )
        remarks.append(Remark(text, serious=False))
    return remarks
