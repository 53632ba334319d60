"""Who has fallen far behind the other sites, from what the others took."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from nognet.wire.records import stated_seconds
from nognet_server.rounds.messages import STILL_AT_WORK, Delivery, Patience, Pending


def straggler_limit_s(
    done: Iterable[Delivery], awaited: Iterable[Pending], patience: Patience
) -> float:
    """Give the seconds after which a site is a straggler.

    Only what tells a site's own time counts. An answer to an earlier exchange's message, whose
    clock started anew, does not; a reply that the site had kept comes at once, and counts with the
    seconds that it states. A site that has declined or failed answers no more and is not waited
    for as part of the half.

    Args:
        done: What has come of messages so far.
        awaited: Messages whose replies are awaited.
        patience: Factor and grace.

    Returns:
        Infinity until half of the sites that can still answer have answered.
    """
    fresh = [delivery for delivery in done if not delivery.is_carried]
    answered = [_site_seconds(delivery) for delivery in fresh if delivery.content is not None]
    asked = (
        len(answered)
        + sum(delivery.reason in STILL_AT_WORK for delivery in fresh)
        + sum(not item.is_carried for item in awaited)
    )
    if patience.straggler_factor is None or not answered or 2 * len(answered) < asked:
        return math.inf
    return max(patience.straggler_grace_s, patience.straggler_factor * median(answered))


def _site_seconds(delivery: Delivery) -> float:
    stated = 0.0 if delivery.content is None else stated_seconds(delivery.content)
    return max(delivery.seconds, stated)
