"""Who takes part by name, who was refused, and who is asked no more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from nognet.wire.fields import Counts

_RETRY_REFUSED_S = 30.0
_RETRY_DECLINED_S = 600.0  # a changed site.yaml may accept; asking more often only fills its log


@dataclass(frozen=True)
class Member:
    """A site that takes part.

    Attributes:
        counts: Its patients and pairs; None where it withholds them.
        shares_models: It lets its own model visit other sites.
        min_patients: It withholds counts and figures with fewer behind them.
    """

    name: str
    node_id: int
    activated_at: str
    versions: Mapping[str, str]
    counts: Counts
    shares_models: bool = False
    min_patients: int = 1


@dataclass(frozen=True)
class Refusal:
    """A site that does not take part, and why; or that declined to, which is its right.

    `code` is what the site is told; empty where it knows why: it gave no answer, or has another
    contract.
    """

    label: str
    reason: str
    activated_at: str
    at: float
    declined: bool = False
    code: str = ""

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask again."""
        pause_s = _RETRY_DECLINED_S if self.declined else _RETRY_REFUSED_S
        return time.monotonic() - self.at >= pause_s


@dataclass(frozen=True)
class Roster:
    """Who takes part by name, who was refused by node id, and who is asked no more and why."""

    members: Mapping[str, Member] = field(default_factory=dict)
    refused: Mapping[int, Refusal] = field(default_factory=dict)
    barred: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> tuple[str, ...]:
        """Name the members that are asked, sorted."""
        return tuple(sorted(name for name in self.members if name not in self.barred))

    def refusals_text(self) -> str:
        """Say who was refused and why; empty if nobody was."""
        return "; ".join(f"{r.label}: {r.reason}" for r in self.refused.values())
