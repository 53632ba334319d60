"""Who contributes is told of every test file that `make test` leaves out altogether."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WHOLLY_SLOW = re.compile(r"^pytestmark = .*\bmark\.slow\b", re.MULTILINE)


def left_out() -> set[str]:
    """Name the files with processes whose every test is slow."""
    files = (ROOT / "tests" / "federation").glob("test_*.py")
    return {path.name for path in files if WHOLLY_SLOW.search(path.read_text(encoding="utf-8"))}


def test_what_is_run_by_hand_is_named_with_when_to_run_it() -> None:
    assert left_out() >= {"test_fault_matrix.py", "test_attacks.py", "test_same_bits.py"}
    assert {name for name in left_out() if f"`{name}`" not in TEXT} == set()


def test_the_files_and_targets_named_exist() -> None:
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", TEXT))
    assert {name for name in named if f"\n{name}:" not in targets} == set()
    files = re.findall(r"`(test_\w+\.py)`", TEXT)
    assert files
    assert [f for f in files if not (ROOT / "tests" / "federation" / f).is_file()] == []
