"""Krum and Multi-Krum: the replies nearest to the others (Blanchard et al. 2017).

    s(i) = sum of || w_i - w_j ||^2 over the n - f - 2 nearest j != i

Distances are sums of squared differences in float64. Flower takes ``|a|^2 + |b|^2 - 2 ab`` in
float32, which for updates of a thousandth of the weights is all rounding (docs/decisions/0010).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nognet.config import KrumConfig, MultiKrumConfig
from nognet_server.strategies.rule import Combined, RoundInput, Wide


def krum(config: KrumConfig, given: RoundInput) -> Combined:
    """Take the one reply with the least score."""
    stacked = given.stacked()
    chosen = ranked(squared_distances(stacked), range(len(stacked)), config.malicious_sites)[0]
    return Combined(stacked[chosen], used=(given.replies[chosen].site,))


def multikrum(config: MultiKrumConfig, given: RoundInput) -> Combined:
    """Average the m replies with the least scores, each alike.

    Pairs and patients don't count: a bad site that is chosen could claim any number of them.
    """
    stacked = given.stacked()
    order = ranked(squared_distances(stacked), range(len(stacked)), config.malicious_sites)
    chosen = sorted(order[: config.selected(len(stacked))])
    mean = stacked[chosen].mean(axis=0, dtype=np.float64)
    return Combined(mean, used=tuple(given.replies[i].site for i in chosen))


def squared_distances(stacked: NDArray[np.float32]) -> Wide:
    """Give the squared distances between rows, ``(n, d)`` -> ``(n, n)``.

    >>> squared_distances(np.array([[0, 0], [3, 4]], np.float32))
    array([[ 0., 25.],
           [25.,  0.]])
    """
    count = len(stacked)
    found = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            gap = np.subtract(stacked[i], stacked[j], dtype=np.float64)
            found[i, j] = found[j, i] = np.square(gap).sum()
    return found


def ranked(distances: Wide, among: Sequence[int], malicious: int) -> list[int]:
    """Sort replies by their scores among themselves, the best first; of equals the first stays.

    Args:
        distances: Squared, between all replies.
        among: Which replies to look at.
        malicious: f; each is scored by its ``n - f - 2`` nearest, at least one.
    """
    nearest = max(1, len(among) - malicious - 2)
    scores = {
        i: float(np.sort(distances[i, [j for j in among if j != i]])[:nearest].sum()) for i in among
    }
    return sorted(among, key=scores.__getitem__)
