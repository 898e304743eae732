"""What the numbers between pairs of maps are called, and which of them mean alike."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Quantity", "quantity"]


@dataclass(frozen=True)
class Quantity:
    """A measure of how alike two maps are.

    Attributes
    ----------
    label : str
        For axes, with its unit.
    larger_is_closer : bool
        True for similarities, False for distances.
    distance : str
        What the tree is built on, with its unit.
    """

    label: str
    larger_is_closer: bool
    distance: str

    def height_label(self, linkage: str) -> str:
        """Return what the height of a merge means, for the axis of a dendrogram."""
        distance = self.distance
        if linkage == "ward" and distance == "1 − correlation":
            # Ward's variance needs a Euclidean distance; this one is, between unit vectors.
            distance = "√(2 (1 − correlation))"
        return f"{distance}, {linkage} linkage"


def quantity(
    metric: str, *, threshold: float = 0.143, resolution_angstrom: float | None = None
) -> Quantity:
    """Return how the numbers of a metric are called.

    Parameters
    ----------
    metric : str
        ``"correlation"``, ``"l2"``, ``"fsc-mean"`` or ``"fsc-resolution"``.
    threshold : float
        Of the Fourier shell correlation, for ``"fsc-resolution"``.
    resolution_angstrom : float, optional
        Up to which shells are averaged, for ``"fsc-mean"``.

    Raises
    ------
    ValueError
        When there is no such metric.

    Examples
    --------
    >>> quantity("fsc-mean", resolution_angstrom=12.0).label
    'mean FSC to 12 Å'
    """
    if metric == "correlation":
        return Quantity("correlation", larger_is_closer=True, distance="1 − correlation")
    if metric == "l2":
        return Quantity(
            "L2 distance (density)", larger_is_closer=False, distance="L2 distance (density)"
        )
    if metric == "fsc-mean":
        upto = "" if resolution_angstrom is None else f" to {resolution_angstrom:.3g} Å"
        return Quantity(f"mean FSC{upto}", larger_is_closer=True, distance=f"1 − mean FSC{upto}")
    if metric == "fsc-resolution":
        label = f"resolution where FSC = {threshold:g} (Å)"
        return Quantity(label, larger_is_closer=False, distance=label)
    raise ValueError(f"there is no metric {metric!r}")
