"""A code may leave a site, so no text of a file may become one: codes are literals."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nognet_client

import nognet
from nognet import errors
from nognet.errors import NognetError

FOLDERS = [Path(package.__file__ or "").parent for package in (nognet, nognet_client)]
CLASSES = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, NognetError)
}


KNOWN = {
    # of an error of ours, or of a finding: those are literals themselves (docs/codes.md lists them)
    "image.py: odd.code",
    "image_file.py: odd.code",
    "image_file.py: err.code",
    "series.py: code",
    "export.py: reason[0]",
    "findings.py: refused[0].code",
    "rtstruct.py: err.code",
    "baseline.py: finding.code",
    "prior.py: finding.code",
    "train.py: err.code",
    "central.py: err.code",
    "updates.py: err.code",
    "round_steps.py: err.code",
    "door.py: found[0].code",
    # a constant
    "prepare.py: CACHE_WRITE",
    "stored_pair.py: CACHE_WRITE",
    # the name of a contract's item; and of the gate's own records
    "contract.py: item_code(items[0])",
    "gate.py: what",
    # ends the client, and travels nowhere
    "supervisor.py: code",
    # process-killed-9, process-exit-1
    "worker.py: how",
}
"""Codes that are computed, each with why no text of a file is in it."""


def computed_codes(source: str) -> Iterator[tuple[int, str]]:
    """List the codes of errors that are no literal: line, and the expression."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id not in CLASSES:
            continue
        for given in node.keywords:
            if given.arg == "code" and not _is_literal(given.value):
                yield node.lineno, ast.unparse(given.value)


def _is_literal(value: ast.expr) -> bool:
    if isinstance(value, ast.IfExp):
        return _is_literal(value.body) and _is_literal(value.orelse)
    return isinstance(value, ast.Constant)


def test_codes_are_literals_or_known() -> None:
    found = {
        f"{path.name}: {code}"
        for folder in FOLDERS
        for path in folder.rglob("*.py")
        for _, code in computed_codes(path.read_text(encoding="utf-8"))
    }
    assert found == KNOWN


def test_a_computed_code_is_found() -> None:
    source = "raise SiteDataError('x', code=patient)\nraise WireError('y', code='keys')"
    assert list(computed_codes(source)) == [(1, "patient")]
