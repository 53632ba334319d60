"""Replies of sites as the coordinator gets them, with four weights."""

from __future__ import annotations

import numpy as np
from nognet_server.rounds.messages import Delivery
from nognet_server.rounds.replies import Asked, Evaluation, Training, check_training

from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.wire.records import EvaluateReply, TrainReply

LENGTH = 4


def delivered(reply: TrainReply | EvaluateReply, *, site: str | None = None) -> Delivery:
    return Delivery(site or reply.site, reply.to_content(), None, 1.0, 10, 20)


def trained(site: str, value: float = 1.0, *, pairs: int = 2) -> TrainReply:
    weights = np.full(LENGTH, value, np.float32)
    return TrainReply(site, 1, weights, pairs, 1, 5, 0.5, 2.0)


def checked(*deliveries: Delivery) -> Training:
    now = Asked(1, np.zeros(LENGTH, np.float32))
    return check_training(deliveries, {d.site: now for d in deliveries}, now)


def statistics(*values: float) -> SiteStatistics:
    return SiteStatistics.from_pairs(
        PairRow("federated", f"p{i}", "stable", {"dsc": value}, 1.0)
        for i, value in enumerate(values)
    )


def evaluated(site: str, *values: float) -> EvaluateReply:
    return EvaluateReply(site, 1, "validation", statistics(*values).to_flat(), 0.5)


def evaluation(**values: tuple[float, ...]) -> Evaluation:
    sites = {site: statistics(*of_site) for site, of_site in values.items()}
    return Evaluation(sites, dict.fromkeys(sites, 0.5), {})
