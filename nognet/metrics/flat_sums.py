"""Sums on the wire: numbers under keys such as ``federated|dsc|growing|total``, checked as input.

Sums that a site withholds are the one number ``federated|dsc|growing|withheld``. What comes back is
checked: known fields, finite, and sums that some set of values can have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from nognet.errors import WireError
from nognet.metrics.definitions import DEFINITIONS
from nognet.metrics.moments import Concordance, Moments, StratifiedMoments
from nognet.types import STRATA

SEPARATOR = "|"
ALL = "all"
WITHHELD = "withheld"
MAX_COUNT = 10**9
_MAX_VALUE = 1e9  # of a metric of one pair, far above any that can occur
PREDICTOR = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_COUNTS = ("n_pairs", "n_patients", "comparisons")
Sums = TypeVar("Sums", Moments, Concordance)
Groups = dict[tuple[str, str, str], dict[str, float]]


def flat_sums(prefix: tuple[str, str, str], sums: Moments | Concordance) -> dict[str, float]:
    """Write sums as numbers under their keys.

    Raises:
        ValueError: they are merged and a part was withheld.
    """
    values = asdict(sums)
    withheld = values.pop(WITHHELD)
    if withheld and sums.n_pairs:
        raise ValueError("merged statistics of which a part is withheld don't travel")
    values = {WITHHELD: withheld} if withheld else values
    return {SEPARATOR.join((*prefix, key)): value for key, value in values.items()}


def grouped(flat: Mapping[str, float]) -> Groups:
    """Sort received numbers by predictor, metric and stratum.

    Raises:
        WireError: an unknown key, or no finite number.
    """
    groups: Groups = {}
    for key, value in flat.items():
        parts = key.split(SEPARATOR)
        if len(parts) != 4 or not PREDICTOR.fullmatch(parts[0]) or parts[1] not in DEFINITIONS:
            raise WireError(f"statistics hold an unknown key of {len(key)} characters", code="keys")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WireError(f"statistics {key}: expected a number", code="not-a-number")
        if not math.isfinite(value):
            raise WireError(f"statistics {key}: the number is not finite", code="not-finite")
        groups.setdefault((parts[0], parts[1], parts[2]), {})[parts[3]] = value
    return groups


def stratified(groups: Groups, predictor: str, metric: str) -> StratifiedMoments:
    """Take a metric's groups out of `groups`: of all pairs, and of each stratum.

    Raises:
        WireError: one can't be, or they don't add up.
    """
    overall = rebuilt(Moments, groups, (predictor, metric, ALL))
    strata = {name: rebuilt(Moments, groups, (predictor, metric, name)) for name in STRATA}
    known = sum(part.n_pairs for part in strata.values())
    is_whole = not any(part.withheld for part in (overall, *strata.values()))
    if (known != overall.n_pairs) if is_whole else (known > overall.n_pairs):
        raise WireError(
            f"statistics {predictor}|{metric}: the strata's pairs don't add up to all pairs",
            code="inconsistent",
        )
    return StratifiedMoments(overall, strata)


def rebuilt(kind: type[Sums], groups: Groups, name: tuple[str, str, str]) -> Sums:
    """Take one group of numbers out of `groups` and make its sums of it.

    Raises:
        WireError: other fields, no counts, or sums that no set of values can have.
    """
    values = groups.pop(name, {})
    if values == {WITHHELD: 1}:
        return kind(withheld=1)
    expected = {entry.name for entry in fields(kind)} - {WITHHELD}
    if set(values) != expected:
        raise WireError(
            f"statistics {SEPARATOR.join(name)}: found fields {sorted(values)}, expected "
            f"{sorted(expected)}",
            code="keys",
        )
    counts = {key: value for key, value in values.items() if key in _COUNTS}
    if any(value != int(value) or not 0 <= value <= MAX_COUNT for value in counts.values()):
        raise WireError(f"statistics {SEPARATOR.join(name)}: found {counts}, expected counts")
    typed: dict[str, Any] = {
        key: int(value) if key in counts else float(value) for key, value in values.items()
    }
    sums = kind(**typed)
    if not _is_possible(sums):
        raise WireError(
            f"statistics {SEPARATOR.join(name)}: no set of values has these sums: {sums}",
            code="inconsistent",
        )
    return sums


def _is_possible(sums: Moments | Concordance) -> bool:
    patients_fit = (sums.n_pairs == 0) == (sums.n_patients == 0) and sums.n_patients <= sums.n_pairs
    if isinstance(sums, Concordance):
        # With g growing of n pairs there are g (n - g) comparisons, n^2 / 4 at most.
        wins_fit = 0 <= sums.wins <= sums.comparisons and (2 * sums.wins).is_integer()
        return patients_fit and wins_fit and 4 * sums.comparisons <= sums.n_pairs**2
    if sums.n_pairs == 0:
        return patients_fit and sums.total == 0 and sums.total_squares == 0
    # Cauchy-Schwarz, with room for rounding of the sums; and no sum that overflows when merged.
    least = sums.total * sums.total / sums.n_pairs
    most = sums.n_pairs * _MAX_VALUE**2
    return patients_fit and least * (1 - 1e-9) <= sums.total_squares <= most
