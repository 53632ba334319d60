"""How often the leakage test's rule fires at a model that tells nothing of who trained it.

Members' and others' scores come from one law, so whatever fires is a false alarm. The two attacks
of a check are drawn apart, which is the worst case: those of a real one share the model's losses.

    python -m tests.builders.null_leakage [TRIALS]  ->  a line for each size of site
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from nognet.config.leakage import LeakageConfig
from nognet.privacy.membership import attack

ATTACKS = 2
SIZES = {10: (5, 5), 20: (10, 5), 30: (15, 5), 40: (20, 7)}
"""Training and validation patients of sites of so many patients; at least five can be judged, which
the default split has from 30 on."""
WARN = LeakageConfig().warn_auc


def false_alarms(
    sizes: tuple[int, int], limits: Sequence[float], trials: int, generator: np.random.Generator
) -> Mapping[float, float]:
    """Give the share of checks in which the whole interval of an attack's AUC is above a limit.

    Args:
        sizes: Training and validation patients.
        limits: AUCs.
        trials: Checks.
        generator: Of scores and bootstraps.
    """
    members, others = sizes
    lowest = [
        max(
            attack(
                generator.normal(size=members), generator.normal(size=others), generator
            ).interval[0]
            for _ in range(ATTACKS)
        )
        for _ in range(trials)
    ]
    return {limit: float(np.mean(np.array(lowest) > limit)) for limit in limits}


if __name__ == "__main__":
    chosen = int(sys.argv[1]) if sys.argv[1:] else 2000
    for patients, split in SIZES.items():
        rates = false_alarms(split, (0.5, WARN, 0.7, 0.8), chosen, np.random.default_rng(1))
        words = ", ".join(f"above {limit:g} {100 * rate:.1f} %" for limit, rate in rates.items())
        sys.stdout.write(f"{patients} patients, {split[0]} against {split[1]}: {words}\n")
        sys.stdout.flush()
