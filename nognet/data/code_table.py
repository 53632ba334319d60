"""All codes of findings as one table: what each means, how bad it is, what to do."""

from __future__ import annotations

from collections.abc import Iterator

from nognet.data.findings import CODES, Severity
from nognet.data.pairs.gate import PAIR_CODES, advice_for

REFUSED: tuple[Severity, ...] = ("refused",)
WARNING: tuple[Severity, ...] = ("warning",)
SKIPPED: tuple[Severity, ...] = ("skipped",)
_OTHER_THAN_REFUSED: dict[str, tuple[Severity, ...]] = {
    **dict.fromkeys(
        (
            "thick-slices", "not-axial", "oblique", "padding", "unsigned-padding", "missing-tags",
            "empty-uids", "several-series", "mask-resampled", "mask-specks", "contrast-differs",
            "dates-differ", "implausible-growth", "kernels-differ", "lung-overlap",
            "nodule-displaced", "nodule-small", "nodule-twice", "patients-differ", "roi-coverage",
            "thickness-differs", "patient-shared", "weak-registration", "prior-absent",
            "prior-doubtful", "prior-unread", "prior-unusable",
        ),
        WARNING,
    ),
    **dict.fromkeys(("localizer", "nodule-unmatched"), SKIPPED),
    **dict.fromkeys(
        (
            "bad-tags", "irregular-spacing", "lossy", "mixed-matrix", "no-position", "no-rescale",
            "sheared",
            "not-hounsfield", "mask-geometry", "mask-incomplete", "mask-segment", "mask-empty",
            "mask-not-binary", "nodule-cut", "mask-other-series",
        ),
        ("refused", "warning"),
    ),
    **dict.fromkeys(("not-ct", "not-dicom", "unreadable", "no-series"), ("refused", "skipped")),
    "truncated": ("refused", "warning", "skipped"),
}  # fmt: skip
_MEANINGS = CODES | PAIR_CODES
_MASKS = tuple(code for code in CODES if code.startswith("mask-"))
_GROUPS = {
    "Series and their slices": tuple(code for code in CODES if code not in _MASKS),
    "Masks": _MASKS,
    "Pairs": tuple(PAIR_CODES),
}
_HEAD = """\
# Codes

What `nognet inspect`, `nognet check` and `nognet prepare` find is told by these codes. They are
stable: scripts may rely on them. Written by `make docs` from the code (`nognet inspect --codes`).

- **refused**: can't be used for training; `prepare` leaves it out and says so.
- **warning**: is used; somebody should look.
- **skipped**: rightly left aside, such as a scout image in the same export.

Where several are given, the message says which and why. A row may have several codes.
"""


def severities_of(code: str) -> tuple[Severity, ...]:
    """List how bad a code can be, the usual first."""
    return _OTHER_THAN_REFUSED.get(code, REFUSED)


def codes_as_markdown() -> str:
    """Write the table of all codes as Markdown."""
    return "\n".join((_HEAD, *_sections())) + "\n"


def _sections() -> Iterator[str]:
    for number, (title, codes) in enumerate(_GROUPS.items()):
        if number:
            yield ""
        yield from (f"## {title}", "", "| code | severity | meaning | what to do |")
        yield "|---|---|---|---|"
        yield from map(_row, codes)


def _row(code: str) -> str:
    severity = ", ".join(severities_of(code))
    return f"| `{code}` | {severity} | {_MEANINGS[code]} | {advice_for(code) or 'nothing'} |"
