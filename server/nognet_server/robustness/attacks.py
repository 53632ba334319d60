"""What the bad site does: to its labels before the run, or to its updates in every round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from nognet.types import RoiPair
from nognet.wire.flat import FlatWeights
from nognet.wire.records import ARRAYS, WEIGHTS, TrainTask
from nognet_server.simulation.engine import SITE_CONFIG

Attack = Literal["none", "sign-flip", "x100", "wrong-labels"]
ATTACKS: tuple[Attack, ...] = ("none", "sign-flip", "x100", "wrong-labels")
FACTORS: dict[Attack, float] = {"sign-flip": -4.0, "x100": 100.0}
"""What the site's update is multiplied by. Flipped four times over, it undoes four honest sites and
is no longer than `federation.max_update_ratio` takes for possible."""


def attacking_app(honest: ClientApp, bad_site: Path, attack: Attack) -> ClientApp:
    """Make a ClientApp that answers as the honest one does, but for one site's updates.

    Args:
        honest: What all sites run.
        bad_site: The `site.yaml` of the one that attacks.
        attack: What it does.
    """
    factor = FACTORS.get(attack)
    if factor is None:
        return honest
    app = ClientApp()

    def train(message: Message, context: Context) -> Message:
        start = TrainTask.from_content(message.content).weights
        reply = honest(message, context)
        if str(context.node_config[SITE_CONFIG]) == str(bad_site.resolve()) and reply.has_content():
            _scale(reply, start, factor)
        return reply

    app.query()(honest)
    app.train()(train)
    app.evaluate()(honest)
    return app


def scaled_update(weights: FlatWeights, start: FlatWeights, factor: float) -> FlatWeights:
    """Multiply an update.

    >>> scaled_update(np.array([3], np.float32), np.array([1], np.float32), -2.0)
    array([-3.], dtype=float32)
    """
    update = weights.astype(np.float64) - start
    return (start + factor * update).astype(np.float32)


def wrongly_labelled(pairs: Sequence[RoiPair]) -> list[RoiPair]:
    """Give each pair the follow-up of the next one, moved by a quarter of the ROI."""
    made = []
    for pair, other in zip(pairs, [*pairs[1:], *pairs[:1]], strict=True):
        shift = tuple(size // 4 for size in pair.baseline.shape)
        made.append(
            replace(
                pair,
                follow_up=np.roll(other.follow_up, shift, axis=(0, 1, 2)),
                follow_up_mask=np.roll(other.follow_up_mask, shift, axis=(0, 1, 2)),
                follow_up_volume_mm3=other.follow_up_volume_mm3,
            )
        )
    return made


def _scale(reply: Message, start: FlatWeights, factor: float) -> None:
    sent = reply.content.array_records[ARRAYS]
    others = {name: array for name, array in sent.items() if name != WEIGHTS}
    weights = scaled_update(sent[WEIGHTS].numpy().astype(np.float32), start, factor)
    reply.content[ARRAYS] = ArrayRecord({**others, WEIGHTS: Array(weights)})
