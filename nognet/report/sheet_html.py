"""The contact sheet as one HTML page: pixels as PNG, outlines as lines that stay sharp."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nognet.files import write_text_atomic
from nognet.report.sheet_panels import FOLLOW_UP_INK, VIEWS, DrawnTile, Outline, Panel
from nognet.report.sheet_words import (
    READING,
    RESEARCH_ONLY,
    STAYS_HERE,
    count_words,
    look_of,
    ordered_statuses,
)

OWNER_ONLY = 0o600


@dataclass(frozen=True)
class _Line:
    """An outline as SVG: path, colour, CSS class."""

    path: str
    ink: str
    kind: str


@dataclass(frozen=True)
class _HtmlPanel:
    """A panel as the template sets it."""

    png: str
    box: str
    lines: tuple[_Line, ...]
    sides: tuple[str, str, str, str]
    description: str
    ruler: str


def write_html(path: Path, title: str, tiles: Sequence[DrawnTile]) -> tuple[Path, ...]:
    """Write the page in one step, readable by its owner alone.

    Raises:
        OSError: the file can't be written.
    """
    write_text_atomic(path, render_html(title, tiles), mode=OWNER_ONLY)
    return (path,)


def render_html(title: str, tiles: Sequence[DrawnTile]) -> str:
    """Render the page: no script, nothing from outside."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nognet.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    statuses = ordered_statuses(tiles)
    return environment.get_template("sheet.html.j2").render(
        title=title,
        counts=count_words(tiles),
        statuses=[
            (number, status, look_of(status), sum(tile.status == status for tile in tiles))
            for number, status in enumerate(statuses)
        ],
        number_of={status: number for number, status in enumerate(statuses)},
        look_of=look_of,
        tiles=[(tile, _rows(tile)) for tile in tiles],
        views=VIEWS,
        reading=READING,
        stays_here=STAYS_HERE,
        research_only=RESEARCH_ONLY,
    )


def _rows(tile: DrawnTile) -> list[tuple[str, list[_HtmlPanel]]]:
    """Give the planes, each with its views."""
    step = len(VIEWS)
    rows = [tile.panels[i : i + step] for i in range(0, len(tile.panels), step)]
    return [(row[0].plane, [_html_panel(panel) for panel in row]) for row in rows]


def _html_panel(panel: Panel) -> _HtmlPanel:
    height, width = panel.pixels.shape[:2]
    lines = tuple(
        _Line("".join(map(_path, outline.lines)), outline.ink, _kind(outline))
        for outline in panel.outlines
        if outline.lines
    )
    has_ruler = panel.view == VIEWS[0] and panel.plane == "Axial" and width > 14
    return _HtmlPanel(
        png=_png_base64(panel.pixels),
        box=f"-0.5 -0.5 {width} {height}",
        lines=lines,
        sides=panel.sides,
        description=panel.description,
        ruler=f"M{width - 12.5} {height - 2.5}h10" if has_ruler else "",
    )


def _kind(outline: Outline) -> str:
    """Name the class: the follow-up's line is broad and lies below, so that both can be seen."""
    breadth = "broad" if outline.ink == FOLLOW_UP_INK else "fine"
    return f"{breadth} dashed" if outline.off_plane else breadth


def _path(points: NDArray[np.float64]) -> str:
    """Write a closed polygon as an SVG path of half-voxel coordinates."""
    steps = [f"{x:g} {y:g}" for x, y in np.round(points[:-1], 2).tolist()]
    return f"M{'L'.join(steps)}Z"


def _png_base64(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
