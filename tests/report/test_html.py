from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from emhet_dask.report.html import Picture, Section, states_table, write_report
from emhet_dask.report.palette import state_colour
from emhet_dask.report.style import new_figure, to_png
from emhet_dask.report.verdict import Remark

NASTY = '<script>alert("1 & 2")</script>'
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """What a test wants to know of a page; fails on elements that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.cells: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def png() -> bytes:
    return to_png(new_figure(width_inches=2, height_inches=1))


@pytest.fixture
def page(tmp_path: Path, png: bytes, small) -> Page:
    (tmp_path / "figure.png").write_bytes(png)
    states = small.states.copy()
    states.loc[2, "medoid_name"] = NASTY
    write_report(
        tmp_path / "report.html",
        title=NASTY,
        headline="40 volumes, 4 separate states",
        reason="Why: a < b.",
        summary=[("Volumes", 40), ("Mask", "12% of the box"), ("Normalised", True)],
        warnings=[Remark("Beware.", serious=True), Remark("By the way.", serious=False)],
        sections=[
            Section("States", "One.\n\nTwo.", [Picture(png, NASTY)], states_table(states)),
            Section("States", pictures=[Picture(tmp_path / "figure.png", "File", alt="A picture")]),
            Section("Größe & Co."),
        ],
        provenance={
            "Parameters": {"seed": 0, "mask": None, "n": 12345, "pair": (1, 2.5)},
            "Versions": {"numpy": "2.0"},
        },
    )
    return Page(tmp_path / "report.html")


def test_page_needs_nothing_from_outside(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "srcset", "action"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("data:image/png;base64,", "#"))


def test_text_of_the_user_is_text(page: Page) -> None:
    assert NASTY in page.cells
    assert page.all("img")[0]["alt"] == NASTY
    assert page.text.count(NASTY) >= 3
    assert "Why: a < b." in page.text


def test_pictures_are_inside_with_their_size_and_description(page: Page, png: bytes) -> None:
    images = page.all("img")
    assert len(images) == 2
    for image in images:
        encoded = (image["src"] or "").removeprefix("data:image/png;base64,")
        assert base64.b64decode(encoded) == png
        # Two inches of 96 CSS pixels.
        assert (image["width"], image["height"]) == ("192", "96")
    assert images[1]["alt"] == "A picture"
    assert "File" in page.text


def test_links_within_the_page_lead_somewhere(page: Page) -> None:
    anchors = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(anchors)) == len(anchors) == 4
    targets = {(link["href"] or "").removeprefix("#") for link in page.all("a")}
    assert targets == set(anchors)


def test_headline_comes_first_and_warnings_stand_out(page: Page) -> None:
    assert len(page.all("h1")) == 1
    order = ["40 volumes, 4 separate states", "Why:", "Warning. Beware.", "Note. By the way."]
    text = " ".join(page.text.split())
    places = [text.rindex(words) if k == 0 else text.index(words) for k, words in enumerate(order)]
    assert places == sorted(places)
    assert [a.get("role") for a in page.all("div") if a.get("class") == "warning"] == ["alert"]


def test_table_of_states(page: Page) -> None:
    cells = [cell.strip() for cell in page.cells]
    assert cells[:7] == [
        "State",
        "Volumes",
        "Particles",
        "Share",
        "Outliers",
        "Volume in the middle",
        "Mean map",
    ]
    assert cells[7:14] == [
        "0",
        "16",
        "1,600",
        "40.0%",
        "1",
        "vol_000",
        "clusters/cluster_000_mean.mrc",
    ]
    swatches = [a["style"] for a in page.all("span")]
    assert swatches == [f"background:{state_colour(k)}" for k in range(4)]


def test_values_are_written_for_people(page: Page) -> None:
    cells = dict(zip(page.cells[-10::2], page.cells[-9::2], strict=True))
    assert cells == {"seed": "0", "mask": "–", "n": "12,345", "pair": "1, 2.5", "numpy": "2.0"}
    assert "Normalisedyes" in page.text.replace("\n", "")


def test_unknown_particles_are_a_dash(tmp_path: Path) -> None:
    states = pd.DataFrame({"cluster": [0, 1], "volumes": [3, 2], "particles": [1.0, None]})
    write_report(
        tmp_path / "r.html",
        title="t",
        headline="h",
        sections=[Section("S", table=states_table(states, noun="cluster"))],
    )
    page = Page(tmp_path / "r.html")
    assert page.cells == ["Cluster", "Volumes", "Particles", "0", "3", "1", "1", "2", "–"]


def test_only_png_files_are_embedded(tmp_path: Path) -> None:
    section = Section("S", pictures=[Picture(b"<svg>", "A drawing")])
    with pytest.raises(ValueError, match="'A drawing' is not a PNG"):
        write_report(tmp_path / "r.html", title="t", headline="h", sections=[section])


def test_what_is_typed_is_set_as_code_and_nothing_else_is_markup(tmp_path):
    path = tmp_path / "report.html"
    text = "Type `emhet select --region <a>` & see."
    write_report(path, title="t", headline="h", sections=[Section("s", text)])
    html = path.read_text()
    assert "<code>emhet select --region &lt;a&gt;</code> &amp; see." in html
