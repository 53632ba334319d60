"""The coordinator's state between rounds: one value, complete, that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.wire.flat import FlatWeights
from nognet_server.central_dp.charges import CentralState

StrategyState = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Best:
    """The best round so far by the study's selection metric."""

    round_number: int
    value: float


@dataclass(frozen=True)
class ServerState:
    """Everything a next round depends on.

    Attributes:
        round_number: Rounds done.
        weights: Global weights after them, flat float32, never written to.
        strategy: Arrays the strategy keeps between rounds (FedAdam's ``m_t``, ``v_t``).
        best: The best round so far; None before the first that has a value.
        history: Entries of `metrics.json`'s ``rounds``, one a round done.
        strikes: Site -> rounds in which what it sent could not be used.
        withdrawn: Sites that left the study and of which the weights hold nothing, sorted.
        central: Account and clip norm of central privacy; None where the study has none.
        lineage: Site -> the round from which on the weights hold something of it; 0 where that
            came with the weights that the run began from.
    """

    round_number: int
    weights: FlatWeights
    strategy: StrategyState = field(default_factory=dict)
    best: Best | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    strikes: Mapping[str, int] = field(default_factory=dict)
    withdrawn: tuple[str, ...] = ()
    central: CentralState | None = None
    lineage: Mapping[str, int] = field(default_factory=dict)

    def contributors_at(self, round_number: int) -> tuple[str, ...]:
        """Name the sites of which the weights after a round hold something, sorted."""
        return tuple(sorted(s for s, first in self.lineage.items() if first <= round_number))

    def __post_init__(self) -> None:
        for array in (self.weights, *self.strategy.values()):
            array.flags.writeable = False
