"""What the sheet says in words, the same in both of its forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nognet.report.sheet_panels import CELL_VOX, DrawnTile

STAYS_HERE = "Patients' images: this sheet stays at the hospital."
RESEARCH_ONLY = "Research use only. Not a medical device."
KNOWN_STATUSES = ("refused", "warning", "ok")


@dataclass(frozen=True)
class StatusLook:
    """How a status is shown: never by colour alone.

    Attributes:
        ink: Of mark, word and border; dark enough for white lettering on it.
        wash: Of the heading's background.
        mark: A sign before the word.
    """

    ink: str
    wash: str
    mark: str


_LOOKS = {
    "ok": StatusLook("#00614a", "#e6f4ef", "\N{CHECK MARK}"),
    "warning": StatusLook("#8a5a00", "#fdf3dc", "!"),
    "refused": StatusLook("#a63c00", "#fbe9e0", "\N{MULTIPLICATION SIGN}"),
}
_OTHER = StatusLook("#50555b", "#eef0f3", "\N{BULLET}")

READING = (
    ("Planes", "through the centre of the baseline nodule; patient's right on the left, head up"),
    ("Window", "the site's roi.hu_window from black to white; 1 mm a voxel"),
    ("Yellow line", "the baseline nodule, as it was drawn there"),
    (
        "Blue line",
        (
            "the follow-up nodule in the baseline's frame; dashed: the plane misses a nodule, and "
            "its silhouette is shown"
        ),
    ),
    (
        "Difference",
        (
            "white: no change; orange: denser at follow-up; blue: thinner. A nodule that grew is "
            "a ring or a spot; orange beside blue along vessels: badly registered"
        ),
    ),
    (
        "Checkerboard",
        (
            f"cells of {CELL_VOX} mm of baseline (yellowish) and follow-up (bluish) in turn; "
            "vessels and the chest wall should run on from cell to cell"
        ),
    ),
)


def look_of(status: str) -> StatusLook:
    """Give a status its look; a word we don't know is grey."""
    return _LOOKS.get(status, _OTHER)


def count_words(tiles: Sequence[DrawnTile]) -> str:
    """Count the pairs by status, the worst first."""
    counts = Counter(tile.status for tile in tiles)
    parts = [f"{counts[s]} {s}" for s in ordered_statuses(tiles)]
    pairs = "1 pair" if len(tiles) == 1 else f"{len(tiles)} pairs"
    return f"{pairs}: {', '.join(parts)}" if parts else "no pairs"


def ordered_statuses(tiles: Sequence[DrawnTile]) -> list[str]:
    """List the statuses that occur, the worst first, unknown ones at the end."""
    found = {tile.status for tile in tiles}
    return [*(s for s in KNOWN_STATUSES if s in found), *sorted(found - set(KNOWN_STATUSES))]
