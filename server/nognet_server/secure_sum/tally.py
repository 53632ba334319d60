"""Replies in a secure sum, checked; and who was left out, why, and what was sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nognet.errors import NognetError, WireError
from nognet.secagg.session import Session
from nognet.wire.records import MaskedTrainReply, Rows, SecureReply, Step
from nognet_server.rounds.messages import Delivery

_log = logging.getLogger("nognet.server.secure_sum")


@dataclass(frozen=True)
class Tally:
    """What the steps of a round came to so far.

    Attributes:
        left_out: Site -> reason; a site that left after its update was masked is still in the sum.
        faulty: Sites that sent something unusable.
        traffic: Site -> what its messages took, seconds those of training.
        short: Site -> bytes down and up of the short steps.
    """

    left_out: Mapping[str, str] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()
    traffic: Mapping[str, Delivery] = field(default_factory=dict)
    short: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def counted(self, delivery: Delivery) -> Tally:
        """Count a short step's bytes."""
        down, up = self.short.get(delivery.site, (0, 0))
        bytes_now = (down + delivery.bytes_down, up + delivery.bytes_up)
        known = self.traffic.get(delivery.site)
        added = {} if known is None else {delivery.site: _plus(known, delivery)}
        return replace(
            self,
            short={**self.short, delivery.site: bytes_now},
            traffic={**self.traffic, **added},
        )

    def trained(self, delivery: Delivery) -> Tally:
        """Note what training took, with the short steps before it."""
        down, up = self.short.get(delivery.site, (0, 0))
        noted = replace(
            delivery,
            content=None,
            bytes_down=delivery.bytes_down + down,
            bytes_up=delivery.bytes_up + up,
        )
        return replace(self, traffic={**self.traffic, delivery.site: noted})

    def without(self, delivery: Delivery, err: Exception, what: str) -> Tally:
        """Leave a site out, by name and reason."""
        code = err.public_code if isinstance(err, NognetError) else "WireError:keys"
        reason = delivery.reason or code
        detail = reason if delivery.reason else f"{reason}: {err}"
        _log.warning("%s: %s is left out: %s", what, delivery.site, detail)
        at_fault = frozenset() if delivery.content is None else frozenset({delivery.site})
        return replace(
            self,
            left_out={**self.left_out, delivery.site: reason},
            faulty=self.faulty | at_fault,
        )


def checked_rows(delivery: Delivery, session: Session, step: Step) -> Rows:
    """Read the rows of a short step.

    Raises:
        WireError: there is no reply, or it answers something else.
    """
    if delivery.content is None:
        raise WireError("there is no reply", code=delivery.reason or "no-reply")
    reply = SecureReply.from_content(delivery.content)
    found = (reply.site, reply.round_number, reply.session, reply.step)
    _check_answers(found, (delivery.site, session.round_number, session.nonce, step))
    return reply.rows


def checked_masked(
    delivery: Delivery, session: Session, length: int, word: np.dtype[Any]
) -> MaskedTrainReply:
    """Read a masked update.

    Raises:
        WireError: there is none, it answers something else, or its words are not as they must be.
    """
    if delivery.content is None:
        raise WireError("there is no reply", code=delivery.reason or "no-reply")
    reply = MaskedTrainReply.from_content(delivery.content, length=length, word=word)
    found = (reply.site, reply.round_number, reply.session)
    _check_answers(found, (delivery.site, session.round_number, session.nonce))
    return reply


def _check_answers(found: tuple[object, ...], expected: tuple[object, ...]) -> None:
    if found != expected:
        raise WireError(f"the reply is for {found}, expected {expected}", code="session")


def _plus(known: Delivery, more: Delivery) -> Delivery:
    return replace(
        known,
        bytes_down=known.bytes_down + more.bytes_down,
        bytes_up=known.bytes_up + more.bytes_up,
    )
