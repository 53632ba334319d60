"""Sites' training replies of random weights, and a study of any strategy that takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nognet_server.runs.state import StrategyState
from nognet_server.strategies import aggregate
from nognet_server.strategies.rule import RoundInput

from nognet.config import StudyConfig
from nognet.wire.flat import FlatWeights
from nognet.wire.records import TrainReply
from tests.builders.federation import make_study

LENGTH = 300
START: FlatWeights = np.random.default_rng(9).normal(size=LENGTH).astype(np.float32)
SPREAD = 0.1


def reply(site: str, weights: FlatWeights, *, pairs: int = 3, patients: int = 2) -> TrainReply:
    """Make a reply with everything that any strategy asks for."""
    control = (weights - START[: len(weights)]) / 2
    return TrainReply(
        site, 1, weights, pairs, patients, 1, 0.5, 0.1, start_loss=0.25 + pairs, control=control
    )


def cohort(count: int, seed: int = 0) -> list[TrainReply]:
    """Make honest replies that depart from `START` by a step in common and one of their own."""
    rng = np.random.default_rng(seed)
    common = rng.normal(scale=SPREAD, size=LENGTH)
    made = []
    for number in range(count):
        weights = START + common + rng.normal(scale=SPREAD, size=LENGTH)
        patients = int(rng.integers(1, 9))
        pairs = patients + int(rng.integers(0, 9))
        site = f"site_{number:02d}"
        made.append(reply(site, weights.astype(np.float32), pairs=pairs, patients=patients))
    return made


def wide(replies: list[TrainReply]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Stack the replies' weights in float64, ``(n, d)``."""
    return np.stack([r.weights.astype(np.float64) for r in replies])


def study_with(folder: Path, strategy: Any, **changes: Any) -> StudyConfig:
    """Make a study of a strategy, with as many sites at least as it needs."""
    return make_study(folder, strategy=strategy, federation={"minimum_sites": 11}, **changes)


def combined(
    study: StudyConfig,
    replies: list[TrainReply],
    *,
    number: int = 1,
    weights: FlatWeights = START,
    kept: StrategyState | None = None,
) -> tuple[FlatWeights, StrategyState]:
    """Aggregate a round."""
    return aggregate(study, round_number=number, weights=weights, kept=kept or {}, replies=replies)


def alone(weights: FlatWeights) -> RoundInput:
    """Make the round of one site."""
    return RoundInput(1, START, {}, (reply("site_a", weights),), (3,))


def with_weights(reply: TrainReply, weights: Any) -> TrainReply:
    """Give a reply other weights."""
    return replace(reply, weights=np.asarray(weights, dtype=np.float32))
