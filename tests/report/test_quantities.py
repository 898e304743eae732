from __future__ import annotations

import pytest

from emhet_dask.report.quantities import quantity


@pytest.mark.parametrize(
    ("metric", "label", "larger_is_closer"),
    [
        ("correlation", "correlation", True),
        ("l2", "L2 distance (density)", False),
        ("fsc-mean", "mean FSC", True),
        ("fsc-resolution", "resolution where FSC = 0.143 (Å)", False),
    ],
)
def test_every_metric_has_a_name_with_its_unit(metric, label, larger_is_closer) -> None:
    found = quantity(metric)
    assert found.label == label
    assert found.larger_is_closer is larger_is_closer


def test_parameters_of_the_metric_are_said() -> None:
    assert quantity("fsc-resolution", threshold=0.5).label == "resolution where FSC = 0.5 (Å)"
    assert quantity("fsc-mean", resolution_angstrom=8.25).distance == "1 − mean FSC to 8.25 Å"


def test_ward_of_correlations_is_of_the_euclidean_distance() -> None:
    found = quantity("correlation")
    assert found.height_label("average") == "1 − correlation, average linkage"
    assert found.height_label("ward") == "√(2 (1 − correlation)), ward linkage"
    assert quantity("l2").height_label("ward") == "L2 distance (density), ward linkage"


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="'cosine'"):
        quantity("cosine")
