"""The receipts that lie beside a log: each is named by a line, but for one that is being written.

The writer names it in a file first. So what a crash leaves between receipt and line is told from a
receipt whose line was taken away.
"""

from __future__ import annotations

from pathlib import Path

RECEIPTS = "receipts"
_PENDING = ".receipt-pending"


def pending_path(folder: Path) -> Path:
    """Where the name of the receipt is kept that is being written, from the log's folder."""
    return folder / _PENDING


def pending_receipt(folder: Path) -> str | None:
    """Name the receipt that is being written, or was when a crash came; None for none."""
    try:
        return pending_path(folder).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def receipts_below(folder: Path) -> set[str]:
    """Name all receipts, from the log's folder; a claimed name that nothing was written to is none.

    Args:
        folder: Of the log.
    """
    found = (folder / RECEIPTS).glob("*/*.json")
    return {p.relative_to(folder).as_posix() for p in found if p.stat().st_size}
