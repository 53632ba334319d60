"""What sites sent, checked: the usable replies, and who is left out and why.

Nothing here sends, waits or writes. Everything is in order of the sites' names, so that sums don't
depend on who answered first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nognet.errors import WireError
from nognet.metrics.statistics import SiteStatistics, merge_all
from nognet.secagg.quantise import Counts
from nognet.types import Split
from nognet.wire.flat import FlatWeights
from nognet.wire.records import (
    PLAIN_REPLY,
    EvaluateReply,
    MaskedTrainReply,
    ReplyForm,
    TrainReply,
)
from nognet_server.rounds.messages import OFFLINE, STILL_AT_WORK, Delivery, declined_code

_log = logging.getLogger("nognet.server.replies")
LATE = "late"
"""Reason of a site whose answer to an earlier round is still awaited."""
WITHHELD = "withheld"
"""Reason of a site with too few patients in a split to give figures of them."""
_WITHHELD_CODE = "EgressError:withheld"


@dataclass(frozen=True)
class Asked:
    """What a site was asked: to train these weights for this round."""

    round_number: int
    weights: FlatWeights = field(repr=False)


@dataclass(frozen=True)
class SecureSum:
    """What is known of a secure sum: who is in it, and what stands behind all of it together.

    Attributes:
        sites: Site -> its masked reply; its words tell nothing.
        counts: Behind the sum.
        seconds: That the protocol took beside the training.
    """

    sites: Mapping[str, MaskedTrainReply]
    counts: Counts
    seconds: float


@dataclass(frozen=True)
class Training:
    """The usable replies of a round's training, sorted by site, and who was left out and why.

    Attributes:
        replies: With weights that all depart from the round's own global weights.
        left_out: Site -> reason.
        faulty: Sites whose replies were unusable; others in `left_out` sent none.
        norms: Site -> Euclidean length of its update.
        traffic: Site -> what its message and reply took.
        masked: Where updates are to be summed securely: the sites that gave one.
        summed: Their sum, where it was made: the one reply is then the sum of all.
    """

    replies: tuple[TrainReply, ...]
    left_out: Mapping[str, str]
    faulty: frozenset[str] = frozenset()
    norms: Mapping[str, float] = field(default_factory=dict)
    traffic: Mapping[str, Delivery] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    summed: SecureSum | None = None

    @property
    def counted(self) -> tuple[str, ...]:
        """Name the sites that count."""
        if self.summed:
            return tuple(self.summed.sites)
        return self.masked or tuple(reply.site for reply in self.replies)


@dataclass(frozen=True)
class Evaluation:
    """The usable statistics of one split by site, and who was left out and why."""

    statistics: Mapping[str, SiteStatistics]
    seconds: Mapping[str, float]
    left_out: Mapping[str, str]
    faulty: frozenset[str] = frozenset()
    traffic: Mapping[str, Delivery] = field(default_factory=dict)

    @property
    def is_possible(self) -> bool:
        """Whether there are figures, or none for no fault of any: sites withhold theirs."""
        reasons = set(self.left_out.values())
        nobodys_fault = {WITHHELD, LATE, OFFLINE, *STILL_AT_WORK}
        return bool(self.statistics) or (WITHHELD in reasons and reasons <= nobodys_fault)

    def pooled(self) -> SiteStatistics:
        """Merge all sites, in order of their names."""
        return merge_all(self.statistics[site] for site in sorted(self.statistics))


def check_training(
    deliveries: Iterable[Delivery],
    asked: Mapping[str, Asked],
    now: Asked,
    *,
    form: ReplyForm = PLAIN_REPLY,
) -> Training:
    """Check what sites sent after training; a bad reply is left out by name and reason.

    An update that a site was asked for in an earlier round departs from that round's weights; it is
    moved to depart from the present ones.

    Args:
        deliveries: One a site.
        asked: What each site was asked.
        now: The round that is played.
        form: What the study's strategy wants of a reply besides weights.
    """
    replies: dict[str, TrainReply] = {}
    left_out: dict[str, str] = {}
    faulty: set[str] = set()
    norms: dict[str, float] = {}
    traffic: dict[str, Delivery] = {}
    for delivery in sorted(deliveries, key=lambda d: d.site):
        site = delivery.site
        traffic[site] = replace(delivery, content=None)
        try:
            content = _content_of(delivery)
            reply = TrainReply.from_content(content, length=now.weights.size, form=form)
            _check_is_answer(reply, site, asked[site].round_number)
        except WireError as err:
            left_out[site] = _left_out(delivery, err, now.round_number, "training")
            faulty |= _at_fault(delivery)
        else:
            norms[site] = update_norm(reply.weights, asked[site].weights)
            replies[site] = _moved(reply, asked[site], now)
    return Training(tuple(replies.values()), left_out, frozenset(faulty), norms, traffic)


def check_evaluation(
    deliveries: Sequence[Delivery],
    *,
    split: Split,
    round_number: int,
    model_of: str | None = None,
) -> Evaluation:
    """Check the statistics that sites sent; bad ones are left out by name and reason.

    Args:
        deliveries: One a site.
        split: That was asked for.
        round_number: That was asked for.
        model_of: The site whose model visited; None for the global one.
    """
    statistics: dict[str, SiteStatistics] = {}
    seconds: dict[str, float] = {}
    left_out: dict[str, str] = {}
    faulty: set[str] = set()
    for delivery in sorted(deliveries, key=lambda d: d.site):
        try:
            reply = EvaluateReply.from_content(_content_of(delivery))
            _check_is_answer(reply, delivery.site, round_number)
            _check_evaluated(reply, split, model_of)
            statistics[delivery.site] = SiteStatistics.from_flat(reply.statistics)
            seconds[delivery.site] = reply.seconds
        except WireError as err:
            left_out[delivery.site] = _left_out(delivery, err, round_number, f"{split} evaluation")
            faulty |= _at_fault(delivery)
    traffic = {delivery.site: replace(delivery, content=None) for delivery in deliveries}
    return Evaluation(statistics, seconds, left_out, frozenset(faulty), traffic)


def update_norm(weights: FlatWeights, start: FlatWeights) -> float:
    """Give the Euclidean length of an update, summed in float64.

    >>> update_norm(np.array([3, 5], np.float32), np.array([0, 1], np.float32))
    5.0
    """
    return float(np.linalg.norm(weights.astype(np.float64) - start.astype(np.float64)))


def _moved(reply: TrainReply, asked: Asked, now: Asked) -> TrainReply:
    """Let an update of an earlier round depart from this round's weights."""
    if asked.round_number == now.round_number:
        return reply
    _log.info("%s: its update of round %d counts now", reply.site, asked.round_number)
    moved = now.weights.astype(np.float64) + (reply.weights.astype(np.float64) - asked.weights)
    return replace(
        reply, round_number=now.round_number, weights=moved.astype(np.float32, casting="same_kind")
    )


def _content_of(delivery: Delivery) -> Any:  # noqa: ANN401  Flower's RecordDict, checked next
    if delivery.content is None:
        raise WireError("there is no reply", code=delivery.reason or "no-reply")
    return delivery.content


def _at_fault(delivery: Delivery) -> set[str]:
    """Tell a site that sent something unusable from one that sent nothing."""
    return set() if delivery.content is None else {delivery.site}


def _check_is_answer(reply: TrainReply | EvaluateReply, site: str, round_number: int) -> None:
    if reply.site != site:
        raise WireError(f"the reply is signed '{reply.site}', expected '{site}'", code="site")
    if reply.round_number != round_number:
        raise WireError(
            f"the reply is for round {reply.round_number}, expected {round_number}", code="round"
        )


def _check_evaluated(reply: EvaluateReply, split: Split, model_of: str | None) -> None:
    if reply.split != split:
        raise WireError(f"the reply is for {reply.split}, expected {split}", code="split")
    if reply.model_of != model_of:
        raise WireError(
            f"the reply is of {reply.model_of or 'the global'} model, expected "
            f"{model_of or 'the global one'}",
            code="model",
        )


def _left_out(delivery: Delivery, err: WireError, round_number: int, what: str) -> str:
    """Log why a site is left out and give the reason for `metrics.json`."""
    if delivery.reason == _WITHHELD_CODE:
        _log.info(
            "round %d: %s withholds its %s: too few patients", round_number, delivery.site, what
        )
        return WITHHELD
    reason = delivery.reason or err.public_code
    if code := declined_code(reason):
        words = "round %d: %s declines %s (%s); its own log says what it accepts"
        _log.warning(words, round_number, delivery.site, what, code)
        return reason
    detail = reason if delivery.reason else f"{reason}: {err}"
    _log.warning("round %d: %s is left out of %s: %s", round_number, delivery.site, what, detail)
    return reason
