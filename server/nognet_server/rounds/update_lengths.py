"""Updates far longer than the usual are left out of a round."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from nognet.config import FederationConfig
from nognet_server.rounds.replies import Training

_log = logging.getLogger("nognet.server.replies")
TOO_LONG = "update-norm"
"""Reason of an update that is far longer than the others'."""
_ENOUGH_TO_COMPARE = 3


def leave_out_long_updates(
    training: Training, limits: FederationConfig, recent_norms: Sequence[float]
) -> Training:
    """Leave out updates far longer than the median of the round, or of the last rounds.

    Args:
        training: Of the round.
        limits: `max_update_ratio`.
        recent_norms: Lengths of updates that counted in the rounds before; they stand in where
            there are fewer than three updates to compare.
    """
    here = [training.norms[reply.site] for reply in training.replies]
    compared = here if len(here) >= _ENOUGH_TO_COMPARE else list(recent_norms)
    if limits.max_update_ratio is None or not compared or (usual := median(compared)) <= 0:
        return training
    most = limits.max_update_ratio * usual
    long = sorted(reply.site for reply in training.replies if training.norms[reply.site] > most)
    for site in long:
        _log.warning(
            "%s is left out of training: its update is %.3g long, the usual length is %.3g; at "
            "most %g times that is taken (federation.max_update_ratio)",
            site,
            training.norms[site],
            usual,
            limits.max_update_ratio,
        )
    return replace(
        training,
        replies=tuple(reply for reply in training.replies if reply.site not in long),
        left_out={**training.left_out, **dict.fromkeys(long, TOO_LONG)},
        faulty=training.faulty | set(long),
    )
