"""Values of an exchange with the sites: what is sent, how long is waited, what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict

from nognet.errors import ConsentError

STILL_AT_WORK = ("timeout", "straggler")
"""Reasons of sites that may still answer."""
OFFLINE = "offline"
"""Reason of a site that was away for too long."""

OUTSIDE_HOURS = f"{ConsentError.__name__}:{ConsentError.outside_hours}"
"""Reason of a site that declines to train now and may accept later."""
_DECLINED = re.compile(rf"{ConsentError.__name__}:([a-z0-9-]+)")


def declined_code(reason: str | None) -> str | None:
    """Give the code with which a site declined, as is its right; None where it did not.

    >>> declined_code("ConsentError:consent-max-rounds")
    'consent-max-rounds'
    >>> declined_code("TrainingError:no-pairs") is None
    True
    """
    found = _DECLINED.fullmatch(reason or "")
    return found.group(1) if found else None


@dataclass(frozen=True)
class Envelope:
    """A message to a site."""

    site: str
    message: Message


@dataclass(frozen=True)
class Delivery:
    """What came of a message: its reply's content, or the reason why there is none.

    Attributes:
        site: The site's name.
        content: The reply's content, unchecked; None if there is none.
        reason: None, or a short code: ``timeout``, ``straggler``, ``offline``, ``not-sent``, or the
            site's own ``Class:code``.
        seconds: From sending to the reply.
        bytes_down: Payload to the site, all sendings together.
        bytes_up: Payload of the reply.
        is_carried: Whether it is of an earlier exchange's message, whose clock started anew.
    """

    site: str
    content: RecordDict | None
    reason: str | None
    seconds: float
    bytes_down: int
    bytes_up: int = 0
    is_carried: bool = False


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds.

    Attributes:
        deadline_s: For each site's reply.
        lost_after_s: For a site that is offline, unless others are waited for anyway.
        poll_s: Between two looks.
        site_deadlines_s: Other deadlines for single sites.
        straggler_factor: Once half of the sites that can still answer have answered, the others
            have so many times the median site's seconds; None: they have their deadlines.
        straggler_grace_s: And at least so long.
    """

    deadline_s: float
    lost_after_s: float = 120.0
    poll_s: float = 0.2
    site_deadlines_s: Mapping[str, float] = field(default_factory=dict)
    straggler_factor: float | None = None
    straggler_grace_s: float = 0.0

    @property
    def longest_s(self) -> float:
        """The longest deadline of any site."""
        return max(self.deadline_s, *self.site_deadlines_s.values(), 0.0)


@dataclass(frozen=True)
class Exchange:
    """What came of an exchange.

    Attributes:
        deliveries: One a site, sorted by site name.
        unanswered: Messages of sites that were given up while they were still at work.
    """

    deliveries: tuple[Delivery, ...]
    unanswered: tuple[Pending, ...] = ()


@dataclass(frozen=True)
class Pending:
    """A message that is under way.

    Attributes:
        site: The site's name.
        message: As it was sent last.
        message_ids: One a sending that Flower took.
        activated_at: When the site's SuperNode came online, as of the last sending; empty if it was
            offline.
        started: Since when the reply is awaited.
        last_seen: When the site was last online.
        bytes_down: Payload of all sendings.
        is_carried: Whether it is of an earlier exchange.
        lost: Name of Flower's error if it lost the last sending.
        is_refused: Whether Flower did not take the last try to send it again.
    """

    site: str
    message: Message
    message_ids: tuple[str, ...]
    activated_at: str
    started: float
    last_seen: float
    bytes_down: int
    is_carried: bool = False
    lost: str = ""
    is_refused: bool = False
