"""Checks of single fields of a received message: keys, texts and numbers, never trusted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from nognet.config.base import NAME_PATTERN
from nognet.errors import WireError
from nognet.types import SPLITS, STRATA, Split

MAX_COUNT = 10**9
MAX_TEXT = 4_000_000
SITE_NAME = re.compile(NAME_PATTERN)
TOKEN = re.compile(r"[0-9a-f]{8,64}")
REFUSAL = re.compile(r"[a-z0-9-]{1,64}")
"""The code of why a site is not used."""
_VERSION = re.compile(r"[A-Za-z0-9.+_-]{1,64}")

WITHHELD = "|withheld"
"""Ends the key of a count that a site withholds; its value is 1."""
MIN_PATIENTS = "min-patients"

Counts = Mapping[Split, Mapping[str, Any]]
"""Split -> ``patients``, ``pairs`` and, by stratum, ``strata``; None is withheld."""
_NONE: frozenset[str] = frozenset()


def expect_keys(
    found: AbstractSet[str], required: AbstractSet[str], optional: AbstractSet[str] = _NONE
) -> None:
    """Refuse missing and unknown keys; they are named, at most five, cut short."""
    missing, unknown = set(required - found), set(found - required - optional)
    if missing or unknown:
        raise WireError(
            f"missing keys {shown(missing)}, unknown keys {shown(unknown)}", code="keys"
        )


def numbers(record: Mapping[str, Any]) -> dict[str, int | float]:
    """Take a record whose values are all finite numbers."""
    taken: dict[str, int | float] = {}
    for key, value in record.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WireError("a record of numbers holds something else", code="type")
        if not math.isfinite(value):
            raise WireError("a record holds a number that is not finite", code="non-finite")
        taken[key] = value
    return taken


def count(record: Mapping[str, float], key: str) -> int:
    """Read a whole number from 0 to a thousand million."""
    value = record[key]
    if value != int(value) or not 0 <= value <= MAX_COUNT:
        raise WireError(f"{key}: found {value}, expected a count", code="counts")
    return int(value)


def number(
    record: Mapping[str, float], key: str, low: float = -math.inf, high: float = math.inf
) -> float:
    """Read a number from `low` to `high`."""
    value = float(record[key])
    if not low <= value <= high:
        raise WireError(f"{key}: found {value}, expected {low} to {high}", code="range")
    return value


def text(record: Mapping[str, Any], key: str, form: re.Pattern[str] | None = None) -> str:
    """Read a text, of the given form if there is one."""
    value = record[key]
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise WireError(f"{key}: expected a text", code="type")
    if form is not None and not form.fullmatch(value):
        raise WireError(f"{key}: not of the form {form.pattern}", code="form")
    return value


def flag(record: Mapping[str, Any], key: str) -> bool:
    """Read a truth value."""
    value = record[key]
    if not isinstance(value, bool):
        raise WireError(f"{key}: expected true or false", code="type")
    return value


def round_number(record: Mapping[str, Any], key: str) -> int:
    """Read the number of a round."""
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise WireError(f"{key}: expected the number of a round", code="type")
    return value


def split_name(record: Mapping[str, Any]) -> Split:
    """Read the name of a split."""
    for split in SPLITS:
        if record["split"] == split:
            return split
    raise WireError(f"split: expected one of {', '.join(SPLITS)}", code="form")


def versions(json_text: str) -> dict[str, str]:
    """Read names and versions of software, at most 16."""
    try:
        found = json.loads(json_text)
    except (ValueError, RecursionError) as err:
        raise WireError("versions: not JSON", code="form") from err
    if not isinstance(found, dict) or len(found) > 16:
        raise WireError("versions: expected at most 16 names", code="form")
    for each in (*found.keys(), *found.values()):
        if not (isinstance(each, str) and _VERSION.fullmatch(each)):
            raise WireError("versions: expected letters, digits and . + _ -", code="form")
    return found


def flat_counts(counts: Counts) -> dict[str, int]:
    """Flatten counts of patients and pairs by split and stratum to ``train|pairs``.

    >>> nothing = {"patients": None, "pairs": None, "strata": dict.fromkeys(STRATA)}
    >>> list(flat_counts(dict.fromkeys(SPLITS, nothing)))[0]
    'train|patients|withheld'
    """
    flat: dict[str, int] = {}
    for split in SPLITS:
        of_split = counts[split]
        strata = [(stratum, of_split["strata"].get(stratum, 0)) for stratum in STRATA]
        totals = [("patients", of_split["patients"]), ("pairs", of_split["pairs"])]
        for name, value in [*totals, *strata]:
            key = f"{split}|{name}"
            flat |= {key + WITHHELD: 1} if value is None else {key: int(value)}
    return flat


def nested_counts(record: Mapping[str, Any]) -> Counts:
    """Rebuild `flat_counts`' argument."""
    flat = numbers(record)
    names = ("patients", "pairs", *STRATA)
    found = {key.removesuffix(WITHHELD) for key in flat}
    expect_keys(found, {f"{split}|{name}" for split in SPLITS for name in names})
    if len(found) != len(flat):
        raise WireError("a count is both there and withheld", code="counts")
    return {
        split: {
            "patients": _count_or_none(flat, f"{split}|patients"),
            "pairs": _count_or_none(flat, f"{split}|pairs"),
            "strata": {stratum: _count_or_none(flat, f"{split}|{stratum}") for stratum in STRATA},
        }
        for split in SPLITS
    }


def _count_or_none(flat: Mapping[str, float], key: str) -> int | None:
    return count(flat, key) if key in flat else None


def shown(names: AbstractSet[str]) -> list[str]:
    """Name at most five keys, cut short: they may come from outside."""
    return [name[:40] for name in sorted(names)[:5]]
