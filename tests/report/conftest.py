"""A small landscape with a known answer, as finished results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.cluster import hierarchy


@dataclass(frozen=True)
class SmallLandscape:
    """Forty volumes in four tight groups."""

    scores: np.ndarray
    ratios: np.ndarray
    labels: np.ndarray
    outliers: np.ndarray
    linkage: np.ndarray
    names: list[str]
    means: np.ndarray
    mask: np.ndarray
    states: pd.DataFrame
    evidence: xr.Dataset


@pytest.fixture(scope="session")
def small() -> SmallLandscape:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [16, 12, 8, 4])
    centres = 10 * rng.normal(size=(4, 6))
    scores = centres[labels] + 0.2 * rng.normal(size=(40, 6))
    variance = np.sort(scores.var(axis=0))[::-1]
    grid = np.indices((16, 16, 16)) - 7.5
    ball = (grid**2).sum(axis=0) < 25
    means = np.stack([ball * (1 + 0.2 * k) + 0.01 * rng.normal(size=ball.shape) for k in range(4)])
    number = np.array([2, 3, 4, 5, 6])
    evidence = xr.Dataset(
        {
            "separation": ("n_clusters", [9.0, 12.0, 30.0, 3.0, 2.5]),
            "critical_separation": ("n_clusters", [4.1, 4.2, 4.3, 4.6, 4.9]),
            "separate_fraction": ("n_clusters", [1.0, 1.0, 1.0, 0.6, 0.3]),
            "silhouette": ("n_clusters", [0.5, 0.6, 0.9, 0.5, 0.4]),
        },
        coords={"n_clusters": number},
        attrs={"slices_of_continuum": float(np.sqrt(12))},
    )
    states = pd.DataFrame(
        {
            "cluster": np.arange(4),
            "volumes": np.bincount(labels),
            "particles": 100.0 * np.bincount(labels),
            "fraction": np.bincount(labels) / 40,
            "outliers": [1, 0, 0, 0],
            "medoid_volume": [0, 16, 28, 36],
            "medoid_name": ["vol_000", "vol_016", "vol_028", "vol_036"],
            "mean_map": [f"clusters/cluster_{k:03d}_mean.mrc" for k in range(4)],
            "std_map": [f"clusters/cluster_{k:03d}_std.mrc" for k in range(4)],
        }
    )
    return SmallLandscape(
        scores=scores,
        ratios=variance / variance.sum(),
        labels=labels,
        outliers=np.arange(40) == 5,
        linkage=hierarchy.linkage(scores, method="ward"),
        names=[f"vol_{k:03d}" for k in range(40)],
        means=means.astype(np.float32),
        mask=ball.astype(np.float32),
        states=states,
        evidence=evidence,
    )
