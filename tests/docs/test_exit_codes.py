"""The documented exit codes are the code's."""

from __future__ import annotations

import re
from pathlib import Path

from nognet.errors import INTERRUPTED_EXIT_CODE, NognetError

TEXT = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? ?\|", TEXT, re.MULTILINE)


def tree(kind: type[NognetError]) -> dict[str, int]:
    """Exit code by class, of the errors that `nognet.errors` defines."""
    found = {kind.__name__: kind.exit_code}
    for child in kind.__subclasses__():
        if child.__module__ == "nognet.errors":
            found |= tree(child)
    return found


def test_the_table_lists_each_error_with_its_code() -> None:
    assert {name: int(code) for code, name in ROWS if name} == tree(NognetError)


def test_codes_are_unique_and_the_others_are_explained() -> None:
    codes = [int(code) for code, _ in ROWS]
    assert len(set(codes)) == len(codes)
    assert {int(code) for code, name in ROWS if not name} == {0, 2, INTERRUPTED_EXIT_CODE}
