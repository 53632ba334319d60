"""Lines of text for people: as wide as their terminal, and nothing in them that steers it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping

WIDTH = 120
"""Width where there is no terminal, and the most there is."""
NARROWEST = 80


def text_width() -> int:
    """Give the terminal's width within bounds; `WIDTH` where the output is no terminal."""
    return max(NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def harmless(lines: Iterable[str]) -> Iterator[str]:
    """Replace what could steer a terminal: names of files and texts of headers may hold it."""
    for line in lines:
        yield "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def wrapped(text: str, indent: str, *, width: int, hanging: str | None = None) -> list[str]:
    """Break a text into lines, those after the first two columns further in."""
    after = f"{indent}  " if hanging is None else hanging
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=after, break_on_hyphens=False
    )


def counted(count: int, what: str) -> str:
    """Write a count right-aligned with its noun, in equal width for one and many."""
    return f"{count:4} {what}s" if count != 1 else f"{count:4} {what} "


def advice_lines(counts: Mapping[str, int], what: str, *, width: int) -> Iterator[str]:
    """Give the advice for each code once, the most frequent first.

    Args:
        counts: How often each code was found.
        what: What was counted, such as ``pair``.
        width: Columns.
    """
    from nognet.data.pairs.gate import advice_for

    advised = [code for code in counts if advice_for(code)]
    if not advised:
        return
    yield "What to do:"
    widest = max(map(len, advised))
    for code in sorted(advised, key=lambda code: -counts[code]):
        head = f"  {code.ljust(widest)} {counted(counts[code], what)}  "
        yield from wrapped(f"{head}{advice_for(code)}", "", width=width, hanging=" " * len(head))
