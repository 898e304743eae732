from __future__ import annotations

import numpy as np

from emhet_dask.report.members import member_sheet
from emhet_dask.report.palette import state_colour


def _note(figure) -> str:
    return " ".join(figure.texts[1].get_text().split())


class AskedFor:
    """Maps that remember which of them were looked at."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __getitem__(self, member: int) -> np.ndarray:
        self.asked.append(member)
        return np.random.default_rng(member).normal(size=(12, 12, 12))


def _texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_member_is_named_in_the_colour_of_its_cluster(small) -> None:
    names = ["open", "closed", "apo", "junk"]
    figure = member_sheet(small.means, names=names, cluster=5, voxel_size_angstrom=3.0)
    assert set(names) <= set(_texts(figure))
    assert figure.get_suptitle() == "Cluster 5: 4 maps"
    assert [line.get_color() for line in figure.axes[0].lines[:4]] == [state_colour(5)] * 4


def test_of_many_members_the_first_are_read_and_the_rest_counted() -> None:
    maps = AskedFor()
    names = [f"vol_{k:03d}" for k in range(1000)]
    figure = member_sheet(
        maps,  # type: ignore[arg-type]
        names=names,
        cluster=0,
        voxel_size_angstrom=3.0,
        order="nearest to their mean first",
    )
    assert sorted(set(maps.asked)) == list(range(24))
    assert figure.get_suptitle() == "Cluster 0: 24 of 1,000 maps"
    note = _note(figure)
    assert "976 further maps not drawn (nearest to their mean first)." in note


def test_maps_of_different_scales_may_have_their_own_grey_values(small) -> None:
    pair = [small.means[0], 100 * small.means[0]]
    spans = []
    for same in (True, False):
        figure = member_sheet(
            pair, names=["a", "b"], cluster=0, voxel_size_angstrom=3.0, same_grey=same
        )
        image = figure.axes[0].images[0].get_array()[..., 0]
        spans.append(np.ptp(image[image.shape[0] // 4 :, :200].astype(float)))
        assert ("same grey values" in _note(figure)) is same
    assert spans[0] < 20
    assert spans[1] > 200


def test_long_names_are_shortened_and_stay_apart(small) -> None:
    names = [f"job085/run_it025_class{k:03d}_sharpened_and_masked_by_hand" for k in range(4)]
    figure = member_sheet(small.means, names=names, cluster=0, voxel_size_angstrom=3.0)
    written = [text for text in _texts(figure) if "…" in text]
    assert len(set(written)) == 4
