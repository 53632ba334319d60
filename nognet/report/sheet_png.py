"""The contact sheet as pictures: A4 pages of six pairs, for slides, prints and quick looks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nognet.files import atomic_path
from nognet.report.sheet_panels import FOLLOW_UP_INK, VIEWS, DrawnTile, Panel
from nognet.report.sheet_words import (
    READING,
    RESEARCH_ONLY,
    STAYS_HERE,
    count_words,
    look_of,
)
from nognet.report.style import GRID_INK, figure_style

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

COLUMNS, ROWS = 2, 3
TILES_A_PAGE = COLUMNS * ROWS
PAGE_INCH = (8.27, 11.69)
DPI = 200
OWNER_ONLY = 0o600
_MARK = "nognet contact sheet"
_MARGIN, _FOOT, _HEAD, _GAP = 0.3, 0.2, 1.2, 0.12
"""Inches: beside the tiles, below them, for title and legend, between them."""
_GUTTER, _LABEL, _NAME, _LINE, _CAPTION_LINES = 0.16, 0.13, 0.24, 0.108, 3
_SPACE = 0.04
_RULER_VOX = 10
_SOFT = "#5f6368"


def write_png(path: Path, title: str, tiles: Sequence[DrawnTile]) -> tuple[Path, ...]:
    """Write one picture, or numbered ones; pages that an earlier, longer sheet left are removed.

    Raises:
        OSError: a file can't be written.
    """
    starts = range(0, len(tiles), TILES_A_PAGE) or range(1)
    pages = [tiles[start : start + TILES_A_PAGE] for start in starts]
    several = len(pages) > 1
    paths = tuple(
        path.with_name(f"{path.stem}-{number}{path.suffix}") if several else path
        for number in range(1, len(pages) + 1)
    )
    for number, (where, page) in enumerate(zip(paths, pages, strict=True), start=1):
        head = f"{count_words(tiles)}; page {number} of {len(pages)}"
        with atomic_path(where, mode=OWNER_ONLY) as temporary:
            _draw_page(temporary, (title, head), page)
    _remove_old_pages(path, keep=paths)
    return paths


def _draw_page(path: Path, head: tuple[str, str], tiles: Sequence[DrawnTile]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=PAGE_INCH, dpi=DPI, facecolor="white")
        page = _Page(figure, FigureCanvasAgg(figure))
        page.head(*head)
        for number, tile in enumerate(tiles):
            page.tile(tile, number)
        if not tiles:
            page.text(_MARGIN, _HEAD + 0.4, "No pair came far enough to have images.", 10)
        metadata = {"Software": _MARK}
        figure.savefig(path, format="png", metadata=metadata)


class _Page:
    """A page as one pair of axes, in inches from its upper left corner."""

    def __init__(self, figure: Figure, canvas: FigureCanvasAgg) -> None:
        self._canvas = canvas
        self._axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE_INCH[0]), ylim=(PAGE_INCH[1], 0))
        self._axes.set_axis_off()
        self._axes.set_autoscale_on(False)
        self._tile_width = (PAGE_INCH[0] - 2 * _MARGIN - (COLUMNS - 1) * _GAP) / COLUMNS
        self._tile_height = (PAGE_INCH[1] - _HEAD - _FOOT - (ROWS - 1) * _GAP) / ROWS

    def head(self, title: str, counts: str) -> None:
        """Set the title, the counts and the legend."""
        width = PAGE_INCH[0] - 2 * _MARGIN
        [line] = self._wrapped(title, 14, width, 1, weight="bold")
        self.text(_MARGIN, 0.36, line, 14, weight="bold")
        [line] = self._wrapped(f"{counts}. {STAYS_HERE} {RESEARCH_ONLY}", 7.5, width, 1)
        self.text(_MARGIN, 0.53, line, 7.5, color=_SOFT)
        words = " \N{MIDDLE DOT} ".join(f"{name}: {meaning}" for name, meaning in READING)
        for number, line in enumerate(self._wrapped(words, 6.1, width, 5)):
            self.text(_MARGIN, 0.69 + 0.105 * number, line, 6.1, color=_SOFT)

    def tile(self, tile: DrawnTile, number: int) -> None:
        """Set a pair at its place on the page."""
        left = _MARGIN + (number % COLUMNS) * (self._tile_width + _GAP)
        top = _HEAD + (number // COLUMNS) * (self._tile_height + _GAP)
        look = look_of(tile.status)
        self._box(left, top, self._tile_width, self._tile_height, edge=GRID_INK)
        self._box(left, top, self._tile_width, _NAME, face=look.wash)
        self._box(left, top, self._tile_width, 0.035, face=look.ink)
        badge = f"{look.mark} {tile.status}"
        badge_inch = self._width(badge, 7, weight="bold") + 0.14
        right = left + self._tile_width
        self._box(right - badge_inch - 0.05, top + 0.06, badge_inch, 0.155, face=look.ink)
        self.text(right - badge_inch + 0.02, top + 0.174, badge, 7, weight="bold", color="white")
        room = self._tile_width - badge_inch - 0.2
        [name] = self._wrapped(tile.name, 8, room, 1, weight="bold")
        self.text(left + 0.06, top + 0.178, name, 8, weight="bold")
        for line_number, line in enumerate(self._caption(tile)):
            self.text(left + 0.06, top + _NAME + 0.11 + _LINE * line_number, line, 6.3)
        self._panels(tile, left, top + _NAME + 0.03 + _CAPTION_LINES * _LINE)

    def _caption(self, tile: DrawnTile) -> list[str]:
        lines: list[str] = []
        for text in tile.caption:
            lines += self._wrapped(text, 6.3, self._tile_width - 0.12, _CAPTION_LINES)
        if len(lines) <= _CAPTION_LINES:
            return lines
        last = f"{lines[_CAPTION_LINES - 1]} {lines[_CAPTION_LINES]}"
        return [
            *lines[: _CAPTION_LINES - 1],
            *self._wrapped(last, 6.3, self._tile_width - 0.12, 1, always_cut=True),
        ]

    def _panels(self, tile: DrawnTile, left: float, top: float) -> None:
        across = (self._tile_width - _GUTTER - 0.06 - 3 * _SPACE) / len(VIEWS)
        bottom_room = self._tile_height - (_NAME + 0.03 + _CAPTION_LINES * _LINE) - _LABEL - 0.05
        edge = min(across, (bottom_room - 2 * _SPACE) / 3)
        for column, view in enumerate(VIEWS):
            x = left + _GUTTER + column * (across + _SPACE) + across / 2
            self.text(x, top + 0.1, view, 6, color=_SOFT, ha="center")
        for number, panel in enumerate(tile.panels):
            row, column = divmod(number, len(VIEWS))
            x = left + _GUTTER + column * (across + _SPACE)
            y = top + _LABEL + row * (edge + _SPACE)
            if column == 0:
                self.text(
                    left + 0.11, y + edge / 2, panel.plane, 6, color=_SOFT, ha="center",
                    va="center", rotation=90,
                )  # fmt: skip
            self._panel(panel, x + (across - edge) / 2, y, edge)

    def _panel(self, panel: Panel, left: float, top: float, edge: float) -> None:
        """Set a panel: pixels, outlines, letters of the sides and, once a tile, a ruler."""
        height, width = panel.pixels.shape[:2]
        step = edge / max(height, width)
        left, top = left + (edge - step * width) / 2, top + (edge - step * height) / 2
        extent = (left, left + step * width, top + step * height, top)
        self._axes.imshow(
            panel.pixels, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="bilinear"
        )
        self._box(left, top, step * width, step * height, edge=GRID_INK)
        for outline in panel.outlines:
            breadth = 1.1 if outline.ink == FOLLOW_UP_INK else 0.55
            dashes = (0, (2.5, 1.8)) if outline.off_plane else "-"
            for points in outline.lines:
                x, y = (points + 0.5).T * step
                self._axes.plot(left + x, top + y, color=outline.ink, lw=breadth, ls=dashes)
        if panel.view == VIEWS[0]:
            self._sides(panel, left, top, edge)
            if panel.plane == "Axial" and width > _RULER_VOX + 4:
                right, low = left + step * (width - 2), top + step * (height - 2)
                self._axes.plot([right - step * _RULER_VOX, right], [low, low], color="w", lw=1.1)
                self.text(right, low - 0.03, "10 mm", 4.2, color="white", ha="right")

    def _sides(self, panel: Panel, left: float, top: float, edge: float) -> None:
        from matplotlib.patheffects import withStroke

        rim = [withStroke(linewidth=1.0, foreground="black")]  # readable on the chest wall too
        places = ((0.04, 0.5), (0.5, 0.05), (0.96, 0.5), (0.5, 0.95))
        aligned = (("left", "center"), ("center", "top"), ("right", "center"), ("center", "bottom"))
        for side, (x, y), (ha, va) in zip(panel.sides, places, aligned, strict=True):
            look = {"color": "w", "weight": "bold", "ha": ha, "va": va, "path_effects": rim}
            self.text(left + x * edge, top + y * edge, side, 5, **look)

    def _box(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        *,
        face: str = "none",
        edge: str = "none",
    ) -> None:
        from matplotlib.patches import Rectangle

        box = Rectangle((left, top), width, height, fc=face, ec=edge, lw=0.5)
        self._axes.add_patch(box)

    def text(self, left: float, baseline: float, words: str, points: float, **style: Any) -> None:  # noqa: ANN401  matplotlib's text properties
        """Write a line whose baseline lies so many inches below the page's upper edge."""
        self._axes.text(left, baseline, words, fontsize=points, **{"va": "baseline", **style})

    def _width(self, words: str, points: float, weight: str = "normal") -> float:
        from matplotlib.font_manager import FontProperties

        font = FontProperties(family="sans-serif", size=points, weight=weight)
        renderer = self._canvas.get_renderer()  # type: ignore[no-untyped-call]  # matplotlib's
        width, _, _ = renderer.get_text_width_height_descent(words, font, ismath=False)
        return float(width) / DPI

    def _wrapped(
        self,
        words: str,
        points: float,
        room: float,
        lines: int,
        *,
        weight: str = "normal",
        always_cut: bool = False,
    ) -> list[str]:
        """Break words into at most so many lines that fit; what is cut off shows as an ellipsis."""
        done: list[str] = []
        rest = " ".join(words.split())
        while rest and len(done) < lines:
            count = self._fitting(rest, points, room, weight)
            if count == len(rest) and not (always_cut and len(done) == lines - 1):
                return [*done, rest]
            if len(done) == lines - 1:
                count = self._fitting(f"\N{HORIZONTAL ELLIPSIS}{rest}", points, room, weight) - 1
                return [*done, f"{rest[:count].rstrip()}\N{HORIZONTAL ELLIPSIS}"]
            space = rest.rfind(" ", 0, count + 1)
            count = space if space > 0 else count
            done.append(rest[:count])
            rest = rest[count:].lstrip()
        return done or [""]

    def _fitting(self, words: str, points: float, room: float, weight: str) -> int:
        """Count the leading characters that fit into the room, at least one."""
        low, high = 1, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            if self._width(words[:middle], points, weight) <= room:
                low = middle
            else:
                high = middle - 1
        return low


def _remove_old_pages(path: Path, *, keep: Sequence[Path]) -> None:
    """Remove pages of an earlier sheet of this name: they'd be taken for part of this one."""
    for old in sorted(_old_pages(path)):
        if old not in keep and _is_ours(old):
            old.unlink(missing_ok=True)


def _old_pages(path: Path) -> Iterator[Path]:
    yield path
    for found in path.parent.iterdir():
        number = found.name.removeprefix(f"{path.stem}-").removesuffix(path.suffix)
        if found.name == f"{path.stem}-{number}{path.suffix}" and number.isdecimal():
            yield found


def _is_ours(path: Path) -> bool:
    """Tell by the mark in the file that a picture is a contact sheet."""
    from PIL import Image, UnidentifiedImageError

    with contextlib.suppress(OSError, UnidentifiedImageError), Image.open(path) as image:
        return image.info.get("Software") == _MARK
    return False
