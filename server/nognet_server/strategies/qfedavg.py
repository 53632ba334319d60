"""q-FedAvg (Li et al. 2020, algorithm 2): sites with a larger loss count more.

    Delta_k = F_k^q L (w - w_k)
    h_k = q F_k^(q-1) L^2 || w - w_k ||^2 + L F_k^q
    w = w - sum p_k Delta_k / sum p_k h_k

F_k is the loss of the *global* weights at site k, before it trains. The paper draws sites by p_k;
here all take part, so p_k stands in the sums. Flower has no p_k, and so is no FedAvg at q = 0.
"""

from __future__ import annotations

import numpy as np

from nognet.config import QFedAvgConfig
from nognet.errors import FederationError
from nognet.wire.records import TrainReply
from nognet_server.strategies.rule import Combined, RoundInput


def qfedavg(config: QFedAvgConfig, given: RoundInput) -> Combined:
    """Combine a round's replies.

    Raises:
        FederationError: a reply has no loss of the global weights.
    """
    q, lipschitz = config.q, config.lipschitz
    step, scale = np.zeros(given.weights.shape), 0.0
    for share, reply in zip(given.shares, given.replies, strict=True):
        loss = _start_loss(reply, given.number)
        gradient = lipschitz * np.subtract(given.weights, reply.weights, dtype=np.float64)
        step += share * loss**q * gradient
        curvature = q * loss ** (q - 1.0) * float(np.square(gradient).sum())
        scale += share * (curvature + lipschitz * loss**q)
    return Combined(given.weights - step / scale)


def _start_loss(reply: TrainReply, round_number: int) -> float:
    if reply.start_loss is None or reply.start_loss <= 0:
        raise FederationError(
            f"round {round_number}: the reply of {reply.site} has loss {reply.start_loss} of the "
            "global weights, q-FedAvg needs one above 0; privacy at the site forbids it to be sent",
            code="no-start-loss",
        )
    return reply.start_loss
