"""The documented codes are the code's, with the severities it gives them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nognet.data
from nognet.data.code_table import codes_as_markdown, severities_of
from nognet.data.findings import CODES
from nognet.data.pairs.gate import ADVICE, INFORMATIVE, PAIR_CODES

DOCUMENT = Path(__file__).parents[2] / "docs" / "codes.md"
KNOWN = set(CODES) | set(PAIR_CODES)
SEVERITIES = {"refused", "warning", "skipped"}


def findings_in_code() -> Iterator[tuple[str, set[str]]]:
    """Every literal ``Finding(code, severity, ...)`` of the data package."""
    for file in Path(nognet.data.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"):
                continue
            literals = {n.value for n in ast.walk(node.args[1]) if isinstance(n, ast.Constant)}
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value, {str(value) for value in literals} & SEVERITIES


def test_the_document_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == codes_as_markdown(), "run `make docs`"


def test_every_code_of_a_finding_is_explained_with_its_severity() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for code, severities in findings_in_code():
        found[code] |= severities
    assert set(found) <= KNOWN
    unlike = {c: s for c, s in found.items() if not s <= set(severities_of(c))}
    assert unlike == {}


def test_no_code_is_explained_twice() -> None:
    assert set(CODES) & set(PAIR_CODES) == set()


def test_every_code_says_what_to_do_or_that_it_only_informs() -> None:
    assert {code for code in KNOWN if code not in ADVICE} <= INFORMATIVE


def test_the_codes_of_the_specification_are_there() -> None:
    asked = (
        "sheared irregular-spacing missing-slice same-position duplicate-position "
        "mixed-orientation mixed-matrix thick-slices localizer not-ct not-axial eight-bit lossy "
        "no-pixels truncated not-dicom padding missing-tags empty-uids unsigned-padding "
        "mask-geometry mask-incomplete mask-other-series mask-not-binary mask-empty oblique "
        "zip-unsafe too-large"
    )
    assert set(asked.split()) <= KNOWN
