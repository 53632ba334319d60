"""What one site may add to a round, and how the bound moves."""

from __future__ import annotations

import math

import numpy as np

from nognet.config import AdaptiveClipping
from nognet_server.strategies.rule import Wide


def clip(update: Wide, clip_norm: float) -> tuple[Wide, bool]:
    """Shorten an update to the clip norm, if it is longer.

    Args:
        update: ``(d,)``, finite.
        clip_norm: Euclidean length, > 0; held to rounding in float64.

    Returns:
        The update, and whether it was within the norm as it came.

    >>> clip(np.array([3.0, 4.0]), 1.0)
    (array([0.6, 0.8]), False)
    """
    length = float(np.linalg.norm(update))
    if length <= clip_norm:
        return update, True
    return update * (clip_norm / length), False


def moved_norm(
    clip_norm: float, adaptive: AdaptiveClipping, *, centred_count: float, sites: int
) -> float:
    """Move the clip norm to the target quantile (Andrew et al. 2021, algorithm 1).

    ``C exp(-rate (b - quantile))`` with b the noised share of updates within C, brought back to
    [0, 1] first (which costs no privacy): with much noise the norm would leap by any factor. A site
    that is absent adds nothing to the centred count, as if half of it were within.

    Args:
        clip_norm: C of this round.
        adaptive: Rate and quantile.
        centred_count: Sum of ``b_k - 1/2`` over sites, noised.
        sites: N, fixed.
    """
    share = min(1.0, max(0.0, 0.5 + centred_count / sites))
    step = -adaptive.learning_rate * (share - adaptive.target_quantile)
    return clip_norm * math.exp(step)
