"""The contact sheet: every pair of a site at a glance, for a human to look at.

A pair that passes all limits can still be wrong, which an eye sees at once: vessels that don't
meet, a mask beside its nodule. The sheet shows patients' images and stays at the site.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nognet.errors import SiteDataError
from nognet.report.sheet_panels import SheetTile, draw_tile

__all__ = ["SheetTile", "write_sheet"]

SUFFIXES = (".html", ".png")


def write_sheet(path: Path, title: str, tiles: Iterable[SheetTile]) -> tuple[Path, ...]:
    """Write the contact sheet; equal input gives equal bytes.

    Args:
        path: ``.html`` writes one page that needs nothing but itself; ``.png`` writes a picture,
            or several (``sheet-1.png``, ``sheet-2.png`` ...) where there are more pairs than fit.
        title: Heading.
        tiles: The pairs in the order in which they're shown; taken one by one, so that an iterator
            never needs all images at once.

    Returns:
        What was written.

    Raises:
        SiteDataError: the suffix is another one, or the file can't be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SiteDataError(
            f"{path}: a contact sheet is written as .html or .png, not as '{path.suffix}'",
            code="sheet-format",
        )
    drawn = tuple(draw_tile(tile) for tile in tiles)
    try:
        if suffix == ".html":
            from nognet.report.sheet_html import write_html

            return write_html(path, title, drawn)
        from nognet.report.sheet_png import write_png

        return write_png(path, title, drawn)
    except OSError as err:
        raise SiteDataError(
            f"{path}: the contact sheet can't be written ({err.strerror})", code="sheet-write"
        ) from err
