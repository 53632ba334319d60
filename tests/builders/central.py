"""Studies under central privacy, and sites' replies of given updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nognet_server.central_dp.charges import CentralState
from nognet_server.runs.state import ServerState
from numpy.typing import NDArray

from nognet.config import StudyConfig
from nognet.wire.records import TrainReply
from tests.builders.federation import make_study
from tests.builders.strategy_rounds import START, reply

CENTRAL = {"noise_multiplier": 1.0, "clip_norm": 0.5, "delta": 1e-3}


def central_study(
    folder: Path,
    *,
    strategy: str | dict[str, Any] = "fedavg",
    weighting: str = "equal",
    sites: int = 3,
    privacy: dict[str, Any] | None = None,
    **changes: Any,
) -> StudyConfig:
    """Make a study of a strategy under central privacy; `privacy` replaces parts of `CENTRAL`."""
    named = {"name": strategy} if isinstance(strategy, str) else strategy
    federation = {"minimum_sites": 1, "expected_sites": sites, "quorum": 0.01}
    return make_study(
        folder,
        strategy={**named, "weighting": weighting},
        federation=federation,
        central_privacy={**CENTRAL, **(privacy or {})},
        **changes,
    )


def begun_state(clip_norm: float = 0.5) -> ServerState:
    """Make the state of a run of which nothing is released yet."""
    return ServerState(0, START.copy(), central=CentralState(clip_norm))


def replies_of(updates: Sequence[NDArray[Any]], counts: Sequence[int] = ()) -> list[TrainReply]:
    """Make the replies of `site_00`, `site_01` ... with these updates and numbers of pairs."""
    made = []
    for number, update in enumerate(updates):
        weights = (START[: len(update)] + update).astype(np.float32)
        pairs = counts[number] if counts else 1
        made.append(replace(reply(f"site_{number:02d}", weights, pairs=pairs), round_number=1))
    return made
