"""The tree of errors: one root, own exit codes, codes free of the message."""

from __future__ import annotations

import re

import pytest

from nognet import errors
from nognet.errors import INTERRUPTED_EXIT_CODE, NognetError


def _tree(root: type[NognetError]) -> list[type[NognetError]]:
    found = [root]
    for child in root.__subclasses__():
        found += _tree(child)
    return [kind for kind in found if kind.__module__ == errors.__name__]


KINDS = _tree(NognetError)


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes) > 8
    reserved = {0, 2, INTERRUPTED_EXIT_CODE}  # success, wrong command line, Ctrl-C
    assert not reserved & set(codes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_in_the_docstring_is_the_tree(kind: type[NognetError]) -> None:
    assert errors.__doc__ is not None
    line = re.search(rf"\b{kind.__name__}\s+(\d+)", errors.__doc__)
    assert line is not None
    assert int(line[1]) == kind.exit_code


@pytest.mark.parametrize("kind", KINDS)
def test_the_public_code_holds_no_word_of_the_message(kind: type[NognetError]) -> None:
    error = kind("patient Doe, born 1950, /data/doe")
    assert re.fullmatch(r"[A-Za-z]+:[a-z0-9-]+", error.public_code)
    assert error.public_code == f"{kind.__name__}:{kind.default_code}"
    assert kind("x", code="sheared").public_code == f"{kind.__name__}:sheared"
    assert str(error) == "patient Doe, born 1950, /data/doe"
