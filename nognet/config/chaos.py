"""Faults that a rehearsal inflicts on sites: ``drop:site_b@3, slow:site_a x5, poison:site_c``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from nognet.errors import ConfigError

FaultKind = Literal["drop", "slow", "nan", "oom", "skew", "poison"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
_DEFAULT_TIMES = {"slow": 5.0, "poison": 1.0}
_FORM = re.compile(
    r"(?P<kind>[a-z]+):(?P<site>[A-Za-z0-9_.-]+?)"
    r"(?:@(?P<first>\d+)(?:-(?P<last>\d+))?)?"
    r"(?:\s*x\s*(?P<times>\d+(?:\.\d+)?))?"
    r"(?:\s*(?P<seconds>[+-]\d+(?:\.\d+)?)s)?"
)
_WITHOUT_SITE = re.compile(r"^([a-z]+)(?=$|[@+\s-])")


@dataclass(frozen=True)
class Fault:
    """One fault of one site.

    Attributes:
        kind: ``drop``: gives no answer. ``slow``: takes `times` as long, or `seconds` longer.
            ``nan``: its weights hold a NaN. ``oom``: runs out of memory. ``skew``: its clock is
            `seconds` off; too far, and it is refused. ``poison``: sends the opposite of its
            update, `times` as long.
        site: Its name.
        first: Round from which on; None is every round.
        last: Round up to which.
        times: Of ``slow`` and ``poison``.
        seconds: Of ``skew``, and of ``slow``.
    """

    kind: FaultKind
    site: str
    first: int | None = None
    last: int | None = None
    times: float = 1.0
    seconds: float = 0.0

    def strikes(self, site: str, round_number: int) -> bool:
        """Whether it strikes a site in a round."""
        if site != self.site:
            return False
        return self.first is None or self.first <= round_number <= (self.last or self.first)

    def __str__(self) -> str:
        """Write it as it is given."""
        last = f"-{self.last}" if self.last is not None and self.last != self.first else ""
        rounds = "" if self.first is None else f"@{self.first}{last}"
        times = f" x{self.times:g}" if self.kind in _DEFAULT_TIMES and not self.seconds else ""
        seconds = f"{self.seconds:+g}s" if self.kind == "skew" or self.seconds else ""
        return f"{self.kind}:{self.site}{rounds}{times}{seconds}"


def parse_chaos(text: str, sites: Iterable[str] | None = None) -> tuple[Fault, ...]:
    """Read faults with commas between them.

    Args:
        text: ``kind:site[@round[-round]][ xTIMES][+SECONDSs]``.
        sites: The sites there are; None where they are not known.

    Raises:
        ConfigError: a fault is not of that form, or of an unknown kind or site.

    >>> [str(fault) for fault in parse_chaos("drop:site_b@3, slow:site_a x5")]
    ['drop:site_b@3', 'slow:site_a x5']
    """
    names = None if sites is None else tuple(sites)
    found = tuple(_fault(part.strip(), names) for part in text.split(",") if part.strip())
    if not found:
        raise ConfigError("--chaos: no fault in it; expected some as drop:site_b@3", code="chaos")
    return found


def parse_own_chaos(text: str, site: str) -> tuple[Fault, ...]:
    """Read the faults of one site: of its own list, or of a list for all sites.

    Args:
        text: As `parse_chaos` reads it; ``:site`` may be left out, and means this one.
        site: Whose faults are wanted; those of others are left aside.

    Raises:
        ConfigError: as `parse_chaos`.

    >>> [str(fault) for fault in parse_own_chaos("drop@3, nan:site_b@2, slow x5", "site_a")]
    ['drop:site_a@3', 'slow:site_a x5']
    """
    named = ",".join(
        _WITHOUT_SITE.sub(rf"\1:{site}", part.strip(), count=1) for part in text.split(",")
    )
    return tuple(fault for fault in parse_chaos(named) if fault.site == site)


def _fault(text: str, sites: tuple[str, ...] | None) -> Fault:
    match = _FORM.fullmatch(text)
    kind = next((k for k in KINDS if match and k == match["kind"]), None)
    if match is None or kind is None:
        raise ConfigError(
            f"--chaos: found '{text}', expected one of {', '.join(KINDS)} as drop:site_b@3, "
            "slow:site_a x5, nan:site_c@2-4, skew:site_b+300s, poison:site_c x10",
            code="chaos",
        )
    if sites is not None and match["site"] not in sites:
        raise ConfigError(
            f"--chaos: '{text}': there is no site '{match['site']}'; expected one of "
            f"{', '.join(sites)}",
            code="chaos",
        )
    first, last = (int(match[key]) if match[key] else None for key in ("first", "last"))
    fault = Fault(
        kind=kind,
        site=match["site"],
        first=first,
        last=last,
        times=float(match["times"] or (1.0 if match["seconds"] else _DEFAULT_TIMES.get(kind, 1.0))),
        seconds=float(match["seconds"] or 0.0),
    )
    _check(fault, text, given_times=match["times"], given_seconds=match["seconds"])
    return fault


def _check(fault: Fault, text: str, *, given_times: str | None, given_seconds: str | None) -> None:
    wrong = (
        (bool(given_times) and fault.kind not in _DEFAULT_TIMES, "xTIMES is for slow and poison"),
        (bool(given_seconds) and fault.kind not in {"skew", "slow"}, "+SECONDSs is for skew, slow"),
        (bool(given_times and given_seconds), "give xTIMES or +SECONDSs"),
        (fault.kind == "skew" and not given_seconds, "skew needs seconds, as +300s"),
        (fault.kind == "slow" and fault.times < 1, "slow needs a factor of 1 or more"),
        (fault.kind == "slow" and fault.seconds < 0, "slow needs seconds of 0 or more"),
        (fault.first == 0, "rounds count from 1"),
        ((fault.last or fault.first or 0) < (fault.first or 0), "the rounds run backwards"),
    )
    for is_wrong, why in wrong:
        if is_wrong:
            raise ConfigError(f"--chaos: '{text}': {why}", code="chaos")
