"""Bulyan (El Mhamdi, Guerraoui & Rouault 2018): Krum chooses, a mean around the median combines.

    1. theta = n - 2 f times: Krum on the replies left; its choice moves to the selection.
    2. number by number: the mean of the beta = theta - 2 f selected nearest to their median.

Scores are made anew after each choice, as the paper has it; Flower ranks once, which in most rounds
selects others (docs/decisions/0010). Near the end Krum has fewer replies left than it would need
alone; that is in the paper too: of theta >= 2 f + 3 selected at most f are bad, whoever they are.
"""

from __future__ import annotations

import numpy as np

from nognet.config import BulyanConfig
from nognet_server.strategies.krum import ranked, squared_distances
from nognet_server.strategies.rule import Combined, RoundInput


def bulyan(config: BulyanConfig, given: RoundInput) -> Combined:
    """Combine a round's replies."""
    stacked, bad = given.stacked(), config.malicious_sites
    distances = squared_distances(stacked)
    left = list(range(len(stacked)))
    chosen: list[int] = []
    while len(chosen) < len(stacked) - 2 * bad:
        best = ranked(distances, left, bad)[0]
        left.remove(best)
        chosen.append(best)
    selected = stacked[sorted(chosen)]
    gaps = np.abs(np.subtract(selected, np.median(selected, axis=0), dtype=np.float64))
    nearest = np.argsort(gaps, axis=0, kind="stable")[: len(selected) - 2 * bad]
    mean = np.take_along_axis(selected, nearest, axis=0).mean(axis=0, dtype=np.float64)
    return Combined(mean, used=tuple(given.replies[i].site for i in sorted(chosen)))
