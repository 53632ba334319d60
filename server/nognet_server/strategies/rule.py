"""What a rule gets and gives: values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.wire.flat import FlatWeights
from nognet.wire.records import TrainReply
from nognet_server.runs.state import StrategyState

Wide = NDArray[np.float64]


@dataclass(frozen=True)
class RoundInput:
    """A round's replies, and what they are combined with.

    Attributes:
        number: Of the round, from 1.
        weights: Global weights that the sites started from, ``(d,)``.
        kept: Arrays that the rule kept after the round before; empty before the first.
        replies: At least as many as the rule needs, checked, sorted by site.
        counts: What each reply counts by, positive.
    """

    number: int
    weights: FlatWeights
    kept: StrategyState
    replies: tuple[TrainReply, ...]
    counts: tuple[int, ...]

    @property
    def shares(self) -> Wide:
        """What each reply counts, ``(n,)``, 1 together."""
        return np.array(self.counts, dtype=np.float64) / sum(self.counts)

    def stacked(self) -> NDArray[np.float32]:
        """Put the sites' weights below one another, ``(n, d)``."""
        return np.stack([reply.weights for reply in self.replies])

    def mean_update(self) -> Wide:
        """Average the sites' weights minus the global ones, summed in float64, ``(d,)``."""
        mean = np.zeros(self.weights.shape)
        for share, reply in zip(self.shares, self.replies, strict=True):
            mean += share * np.subtract(reply.weights, self.weights, dtype=np.float64)
        return mean


@dataclass(frozen=True)
class Combined:
    """What a rule made of a round.

    Attributes:
        weights: New global weights, ``(d,)``, of any float type.
        kept: What the rule wants back in the next round; each ``(d,)`` or ``(1,)``.
        used: Sites whose replies were taken, where the rule chooses; else None.
    """

    weights: NDArray[Any]
    kept: StrategyState = field(default_factory=dict)
    used: tuple[str, ...] | None = None


Rule = Callable[[Any, RoundInput], Combined]
"""From a strategy's own configuration and a round to what became of it."""
