"""Who takes part by name, who was refused, and who is asked no more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.proto.node_pb2 import NodeInfo

from nognet.wire.fields import Counts
from nognet_server.rounds.messages import Pending

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
class Question:
    """The question who it is, under way to a node.

    Attributes:
        node: As it was when it was asked.
        pending: The message.
        since: When it was asked, by the monotonic clock.
    """

    node: NodeInfo
    pending: Pending
    since: float


@dataclass(frozen=True)
class Roster:
    """Who takes part, who does not and why.

    Attributes:
        members: By name.
        refused: By node id.
        barred: Name -> why the site is asked no more.
        unanswered: By node id: who has not said yet who it is, members that began anew among them.
    """

    members: Mapping[str, Member] = field(default_factory=dict)
    refused: Mapping[int, Refusal] = field(default_factory=dict)
    barred: Mapping[str, str] = field(default_factory=dict)
    unanswered: Mapping[int, Question] = field(default_factory=dict)

    @property
    def asked(self) -> tuple[str, ...]:
        """Name the members that are asked, sorted."""
        return tuple(sorted(name for name in self.members if name not in self.barred))

    @property
    def heard_of(self) -> frozenset[int]:
        """The nodes that joined or were refused."""
        return frozenset(m.node_id for m in self.members.values()) | frozenset(self.refused)

    def refusals_text(self) -> str:
        """Say who is not used and why; empty if everybody is."""
        why = {label_of(q.node): "has not answered yet" for q in self.unanswered.values()}
        why.update((r.label, r.reason) for r in self.refused.values())
        return "; ".join(f"{label}: {reason}" for label, reason in why.items())


def silent_for(roster: Roster, seconds: float) -> list[str]:
    """Name the nodes that were asked at least so long ago and have not answered, sorted."""
    now = time.monotonic()
    silent = (q.node for q in roster.unanswered.values() if now - q.since >= seconds)
    return sorted(map(label_of, silent))


def label_of(node: NodeInfo) -> str:
    """Name a node before it has said who it is."""
    return node.name or f"node {node.node_id}"
