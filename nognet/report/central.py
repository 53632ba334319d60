"""Central differential privacy in words, for the page."""

from __future__ import annotations

from nognet.report.metrics_schema import RunMetrics
from nognet.report.numbers import number


def central_sentence(metrics: RunMetrics) -> str | None:
    """Say what site-level privacy cost, and what it does not cover; None without it."""
    entry = metrics.central_privacy
    if entry is None:
        return None
    limit = "" if entry.max_epsilon is None else f" (limit {number(entry.max_epsilon, 2)})"
    stopped = (
        ""
        if entry.stopped_before_round is None
        else f" The limit stopped the run before round {entry.stopped_before_round}."
    )
    makers = (
        ""
        if entry.noise_from == "coordinator"
        else f" It is in every sum that the coordinator saw: the sites made it, in shares for "
        f"{entry.honest_sites} of them, so that more sites make more."
    )
    return (
        f"Site-level differential privacy of the global weights: epsilon "
        f"{number(entry.epsilon, 2)}{limit} at delta {entry.delta:g} for any one site, over "
        f"{entry.releases} releases. In a round the noise was {number(entry.noise_ratio, 1)} times "
        f"as long as the mean update of {entry.sites} sites can be.{makers}{stopped} Figures of "
        "sites, the lengths of their updates and the choice of the round by validation are not "
        "covered."
    )
