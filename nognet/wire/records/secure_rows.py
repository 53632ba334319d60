"""What sites give one another in a secure sum, through the coordinator: rows by site, as one text.

The text is JSON of names of sites and bytes as hexadecimal digits, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from nognet.errors import WireError
from nognet.wire import fields

Step = Literal["keys", "shares", "train", "agree", "reveal"]
Rows = Mapping[str, Mapping[str, bytes]]
COLUMNS: Mapping[tuple[str, Step], frozenset[str]] = {
    ("task", "keys"): frozenset(),
    ("reply", "keys"): frozenset({"identity", "seal", "mask", "signature"}),
    ("task", "shares"): frozenset({"identity", "seal", "mask", "signature"}),
    ("reply", "shares"): frozenset({"sealed", "commitment"}),
    ("task", "train"): frozenset({"sealed"}),
    ("task", "agree"): frozenset(),
    ("reply", "agree"): frozenset({"signature"}),
    ("task", "reveal"): frozenset({"signature"}),
    ("reply", "reveal"): frozenset({"seed", "key"}),
}
_MOST_BYTES, _MOST_ROWS = 256, 64


def rows_text(rows: Rows) -> str:
    """Write rows; equal rows give equal text.

    >>> rows_text({"site_a": {"seal": b"+"}})
    '{"site_a":{"seal":"2b"}}'
    """
    plain = {site: {name: value.hex() for name, value in row.items()} for site, row in rows.items()}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def parse_rows(text: str, columns: frozenset[str]) -> Rows:
    """Read rows; only these columns may be there.

    Raises:
        WireError: the text is no such rows.
    """
    try:
        rows = {site: _row(site, row, columns) for site, row in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as err:
        raise WireError("rows of a secure sum: not of the form expected", code="form") from err
    if len(rows) > _MOST_ROWS:
        raise WireError(f"rows of a secure sum: more than {_MOST_ROWS} sites", code="form")
    return rows


def _row(site: str, row: Mapping[str, str], columns: frozenset[str]) -> Mapping[str, bytes]:
    if not fields.SITE_NAME.fullmatch(site) or not set(row) <= columns:
        raise ValueError
    values = {name: bytes.fromhex(value) for name, value in row.items()}
    if any(len(value) > _MOST_BYTES for value in values.values()):
        raise ValueError
    return values
