"""The mechanism: updates in, one noised mean update out. The key of the noise is passed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from nognet.privacy.central import CentralPlan
from nognet.privacy.secret import SecretStream
from nognet.wire.flat import FlatWeights
from nognet.wire.records import TrainReply
from nognet_server.central_dp.clipping import clip, moved_norm
from nognet_server.strategies.rule import Wide


@dataclass(frozen=True)
class BoundedSum:
    """What the sites add up to, before noise: a secret of the coordinator.

    Attributes:
        total: Sum of ``a_k`` times the clipped updates, float64, ``(d,)``.
        centred_count: Sum of ``b_k - 1/2``, b_k whether an update was within the norm.
        replies: How many were added.
    """

    total: Wide = field(repr=False)
    centred_count: float
    replies: int


@dataclass(frozen=True)
class Release:
    """What leaves the mechanism.

    Attributes:
        update: The noised mean update, ``(d,)``.
        clip_norm: Of the next round.
    """

    update: Wide = field(repr=False)
    clip_norm: float


def bounded_sum(
    weights: FlatWeights,
    replies: Iterable[tuple[TrainReply, int]],
    *,
    clip_norm: float,
    max_weight: int,
) -> BoundedSum:
    """Add the clipped updates, in order of the sites' names.

    Args:
        weights: Global weights that the updates depart from.
        replies: With what each counts by; one a site.
        clip_norm: C.
        max_weight: W; a larger count is cut to it.

    Returns:
        A sum to which each site has added a vector of length ``W C`` at most.
    """
    ordered = sorted(replies, key=lambda counted: counted[0].site)
    total, within = np.zeros(weights.shape), 0
    for reply, count in ordered:
        update, fits = clip(np.subtract(reply.weights, weights, dtype=np.float64), clip_norm)
        total += min(count, max_weight) * update
        within += fits
    return BoundedSum(total, within - len(ordered) / 2, len(ordered))


def release(
    plan: CentralPlan, summed: BoundedSum, *, clip_norm: float, secret: SecretStream
) -> Release:
    """Noise the sum once, in float64, divide it by the fixed weight, and move the clip norm.

    Args:
        plan: Of the study.
        summed: Of this round, made with this `clip_norm`.
        clip_norm: C of this round.
        secret: Where the noise comes from; a fresh one outside of tests.
    """
    noised = summed.total + plan.sum_std(clip_norm) * secret.normal(summed.total.shape)
    update = noised / plan.total_weight
    if plan.adaptive is None:
        return Release(update, clip_norm)
    count = summed.centred_count + plan.count_std * float(secret.normal((1,))[0])
    moved = moved_norm(clip_norm, plan.adaptive, centred_count=count, sites=plan.sites)
    return Release(update, moved)
