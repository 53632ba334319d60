from __future__ import annotations

import base64
import io
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nognet.errors import SiteDataError
from nognet.report import sheet_png
from nognet.report.sheet import SheetTile, write_sheet
from nognet.report.sheet_panels import (
    CELL_VOX,
    FOLLOW_UP_INK,
    VIEWS,
    Panel,
    draw_tile,
)
from nognet.report.style import BASELINE_INK
from tests.builders.sheet_tiles import build_tile

PLANES = ("Axial", "Coronal", "Sagittal")


def panel(tile: SheetTile, plane: str, view: str) -> Panel:
    [found] = [p for p in draw_tile(tile).panels if p.plane == plane and view in p.view]
    return found


def with_baseline_point(tile: SheetTile, z: int, y: int, x: int) -> SheetTile:
    image = np.zeros_like(tile.baseline)
    image[z, y, x] = 1
    return replace(tile, baseline=image)


@pytest.mark.parametrize(
    ("plane", "voxel", "row_column"),
    [
        # the nodule's centre is (8, 9, 10) in a box of (20, 22, 24): z up, y back, x to the left
        ("Axial", (8, 0, 0), (0, 0)),  # front and right of the patient: upper left
        ("Axial", (8, 21, 23), (21, 23)),
        ("Coronal", (19, 9, 0), (0, 0)),  # head and right: upper left
        ("Coronal", (0, 9, 23), (19, 23)),
        ("Sagittal", (19, 0, 10), (0, 0)),  # head and front: upper left
        ("Sagittal", (0, 21, 10), (19, 21)),
    ],
)
def test_planes_pass_through_the_nodule_and_lie_as_a_radiologist_expects(
    plane: str, voxel: tuple[int, int, int], row_column: tuple[int, int]
) -> None:
    tile = build_tile(shape=(20, 22, 24), centre=(8, 9, 10), radii=(3, 3))
    drawn = panel(with_baseline_point(tile, *voxel), plane, "Baseline").pixels
    assert drawn[row_column] == 255
    assert int(drawn.astype(int).sum()) == 255
    beside = tuple(v + step for v, step in zip(voxel, _across(plane), strict=True))
    assert not panel(with_baseline_point(tile, *beside), plane, "Baseline").pixels.any()


def _across(plane: str) -> tuple[int, int, int]:
    return {"Axial": (1, 0, 0), "Coronal": (0, 1, 0), "Sagittal": (0, 0, 1)}[plane]


def test_the_letters_of_the_sides_follow_the_patient() -> None:
    sides = {p.plane: p.sides for p in draw_tile(build_tile()).panels}
    assert sides == {
        "Axial": ("R", "A", "L", "P"),
        "Coronal": ("R", "S", "L", "I"),
        "Sagittal": ("A", "S", "P", "I"),
    }


@pytest.mark.parametrize("plane", PLANES)
def test_an_outline_encloses_the_area_of_its_mask(plane: str) -> None:
    tile = build_tile(shape=(30, 34, 38), centre=(12, 20, 25), radii=(5, 7))
    drawn = panel(tile, plane, "Follow-up")
    for outline in drawn.outlines:
        radius = 5 if outline.ink == BASELINE_INK else 7
        [line] = outline.lines
        x, y = line[:-1].T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        assert not outline.off_plane
        assert area == pytest.approx(np.pi * radius**2, rel=0.1)
    assert {o.ink for o in drawn.outlines} == {BASELINE_INK, FOLLOW_UP_INK}


def test_an_outline_lies_around_its_nodule_in_the_flipped_planes_too() -> None:
    tile = build_tile(shape=(30, 34, 38), centre=(6, 20, 25), radii=(5, 5))
    for plane in PLANES:
        drawn = panel(tile, plane, "Baseline")
        bright = np.argwhere(drawn.pixels > 150).mean(axis=0)
        line = drawn.outlines[0].lines[0][:-1]
        np.testing.assert_allclose(line.mean(axis=0)[::-1], bright, atol=0.3)


def test_a_mask_at_the_images_edge_has_a_closed_outline() -> None:
    tile = build_tile(centre=(1, 1, 1), radii=(4, 4))
    for line in panel(tile, "Axial", "Baseline").outlines[0].lines:
        np.testing.assert_array_equal(line[0], line[-1])


def test_a_follow_up_nodule_beside_the_plane_shows_as_a_dashed_silhouette() -> None:
    tile = build_tile(follow_up_centre=(26, 16, 16), radii=(4, 4))
    axial, coronal = panel(tile, "Axial", "Follow-up"), panel(tile, "Coronal", "Follow-up")
    assert {o.ink: o.off_plane for o in axial.outlines} == {
        BASELINE_INK: False,
        FOLLOW_UP_INK: True,
    }
    assert "in another plane" in axial.description
    assert not any(o.off_plane for o in coronal.outlines)


def test_without_any_mask_the_middle_is_shown_and_said_to_be_without_a_nodule() -> None:
    empty = np.zeros((32, 32, 32), dtype=np.uint8)
    drawn = draw_tile(replace(build_tile(), baseline_mask=empty, follow_up_mask=empty))
    assert len(drawn.panels) == len(PLANES) * len(VIEWS)
    assert "absent" in drawn.panels[0].description


def test_what_grew_is_orange_what_shrank_is_blue_and_the_rest_is_white() -> None:
    grown, shrunk = build_tile(radii=(4, 8)), build_tile(radii=(8, 4))
    for tile, is_orange in ((grown, True), (shrunk, False)):
        pixels = panel(tile, "Axial", "Difference").pixels.astype(int)
        red, blue = pixels[16, 22, 0], pixels[16, 22, 2]  # in the ring of 4 to 8 voxels
        assert (red > blue) == is_orange
        assert abs(red - blue) > 100
        assert tuple(pixels[16, 16]) == tuple(pixels[0, 0]) == (255, 255, 255)


def test_cells_of_the_checkerboard_come_from_both_times_in_turn() -> None:
    tile = build_tile()
    bright = replace(tile, baseline=np.ones_like(tile.baseline), follow_up=0 * tile.follow_up)
    pixels = panel(bright, "Axial", "Checkerboard").pixels
    assert pixels[0, 0].min() > 200
    assert not pixels[0, CELL_VOX].any()
    assert pixels[CELL_VOX, CELL_VOX].min() > 200


def test_a_pair_is_left_as_it_was() -> None:
    tile = build_tile()
    before = [np.copy(a) for a in (tile.baseline, tile.follow_up, tile.baseline_mask)]
    draw_tile(tile)
    for old, new in zip(before, (tile.baseline, tile.follow_up, tile.baseline_mask), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_pair_on_two_grids_or_outside_its_range_is_refused() -> None:
    tile = build_tile()
    with pytest.raises(ValueError, match=r"follow_up is \(31, 32, 32\)"):
        replace(tile, follow_up=tile.follow_up[1:])
    with pytest.raises(ValueError, match="baseline has values outside"):
        replace(tile, baseline=tile.baseline * 1000)
    with pytest.raises(ValueError, match="follow_up has values outside"):
        replace(tile, follow_up=np.full_like(tile.follow_up, np.nan))


class _Page(HTMLParser):
    """Collects what a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def html_of(tmp_path: Path, *tiles: SheetTile, title: str = "hospital_a") -> str:
    path = tmp_path / "sheet.html"
    assert write_sheet(path, title, tiles) == (path,)
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    text = html_of(tmp_path, build_tile())
    assert "default-src 'none'" in text
    assert not re.findall(r"https?:|//[a-z]", re.sub(r"base64,[^\"]+", "", text))
    page = _Page(text)
    assert not [tag for tag, _ in page.tags if tag in {"script", "link", "iframe", "object"}]
    assert all((a["src"] or "").startswith("data:image/png;base64,") for a in page.all("img"))


def test_every_picture_of_the_page_has_its_words_and_its_pixels(tmp_path: Path) -> None:
    tile = build_tile(follow_up_centre=(18, 16, 17))
    images = _Page(html_of(tmp_path, tile)).all("img")
    drawn = draw_tile(tile).panels
    assert [image["alt"] for image in images] == [p.description for p in drawn]
    assert all(image["loading"] == "lazy" for image in images)
    for image, expected in zip(images, drawn, strict=True):
        raw = base64.b64decode((image["src"] or "").partition("base64,")[2])
        with Image.open(io.BytesIO(raw)) as found:
            np.testing.assert_array_equal(np.asarray(found), expected.pixels)


def test_each_pair_shows_its_name_status_and_caption_in_words(tmp_path: Path) -> None:
    tiles = [
        build_tile(name=f"P{i}", status=status, caption=f"{i} days\nthick-slices: 5 mm")
        for i, status in enumerate(["ok", "refused", "warning", "odd"])
    ]
    page = _Page(html_of(tmp_path, *tiles))
    sections = [a for a in page.all("section") if a["class"]]
    assert len(sections) == 4
    for tile in tiles:
        for words in (tile.name, tile.status, *tile.caption.splitlines()):
            assert words in page.words
    assert "4 pairs: 1 refused, 1 warning, 1 ok, 1 odd" in page.words
    ids = {a["id"] for a in page.all("input")}
    assert ids == {"only-all", "only-0", "only-1", "only-2", "only-3"}


def test_a_long_sheet_has_a_list_that_leads_to_every_pair(tmp_path: Path) -> None:
    page = _Page(html_of(tmp_path, *(build_tile(name=f"P{i}") for i in range(9))))
    targets = {(a["href"] or "").removeprefix("#") for a in page.all("a")}
    assert targets == {a["id"] for a in page.all("section")}


def test_names_from_outside_are_text_and_no_markup(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>\"' & $x^2$"
    tile = build_tile(name=nasty, status=nasty, caption=nasty)
    text = html_of(tmp_path, tile, title=nasty)
    assert "<script" not in text
    assert _Page(text).words.count(nasty) >= 3
    assert write_sheet(tmp_path / "sheet.png", nasty, [tile])


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_equal_pairs_give_equal_bytes_which_the_owner_alone_may_read(
    tmp_path: Path, suffix: str
) -> None:
    files = []
    for name in ("a", "b"):
        [written] = write_sheet(tmp_path / f"{name}.{suffix}", "t", iter([build_tile()]))
        files.append(written)
        assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_a_site_without_any_cut_pair_gets_a_sheet_that_says_so(tmp_path: Path, suffix: str) -> None:
    [written] = write_sheet(tmp_path / f"none.{suffix}", "t", [])
    if suffix == "html":
        assert "No pair came far enough" in written.read_text()
    assert written.stat().st_size > 1000


def test_more_pairs_than_fit_make_numbered_pages_and_old_pages_go(tmp_path: Path) -> None:
    tiles = [build_tile(shape=(8, 8, 8), centre=(4, 4, 4), radii=(2, 2))] * 13
    foreign = tmp_path / "sheet-9.png"
    Image.new("L", (4, 4)).save(foreign)
    paths = write_sheet(tmp_path / "sheet.png", "t", tiles)
    assert [path.name for path in paths] == ["sheet-1.png", "sheet-2.png", "sheet-3.png"]
    with Image.open(paths[0]) as first, Image.open(paths[2]) as last:
        assert first.size == last.size == (1654, 2338)
    assert [p.name for p in write_sheet(tmp_path / "sheet.png", "t", tiles[:7])] == [
        "sheet-1.png",
        "sheet-2.png",
    ]
    assert write_sheet(tmp_path / "sheet.png", "t", tiles[:1]) == (tmp_path / "sheet.png",)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sheet-9.png", "sheet.png"]


_PAGE: list[sheet_png._Page] = []


def page() -> sheet_png._Page:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not _PAGE:
        figure = Figure(figsize=sheet_png.PAGE_INCH, dpi=sheet_png.DPI)
        _PAGE.append(sheet_png._Page(figure, FigureCanvasAgg(figure)))
    return _PAGE[0]


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), max_size=300))
def test_text_fits_its_room_and_is_cut_only_with_an_ellipsis(words: str) -> None:
    lines = page()._wrapped(words, 6.3, 1.5, 3)
    assert 1 <= len(lines) <= 3
    assert all(page()._width(line, 6.3) <= 1.5 for line in lines)
    whole = "".join(words.split())
    shown = "".join("".join(lines).split())
    if shown != whole:
        assert shown.endswith("\N{HORIZONTAL ELLIPSIS}")
        assert whole.startswith(shown[:-1])


def test_a_caption_that_is_too_long_for_a_picture_says_so() -> None:
    tile = draw_tile(build_tile(caption="\n".join(f"code-{i}: found {i}" for i in range(9))))
    lines = page()._caption(tile)
    assert len(lines) == 3
    assert lines[-1].endswith("\N{HORIZONTAL ELLIPSIS}")


def test_another_kind_of_file_or_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteDataError, match=r"html or \.png") as caught:
        write_sheet(tmp_path / "sheet.pdf", "t", [])
    assert caught.value.code == "sheet-format"
    (tmp_path / "file").write_text("x")
    with pytest.raises(SiteDataError, match="can't be written"):
        write_sheet(tmp_path / "file" / "sheet.html", "t", [])
