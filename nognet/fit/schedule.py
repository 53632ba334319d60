"""The learning rate over rounds and steps."""

from __future__ import annotations

import math

from nognet.config import TrainingConfig


def learning_rate(training: TrainingConfig, *, step: int, round_number: int, rounds: int) -> float:
    """Give the learning rate of a step: cosine over the rounds, linear warm-up within each.

    Args:
        training: Peak rate, final fraction, warm-up.
        step: From 0, within the round.
        round_number: From 1.
        rounds: In the run.

    >>> learning_rate(TrainingConfig(warmup_steps=0), step=0, round_number=1, rounds=10)
    0.002
    """
    share_done = (round_number - 1) / max(1, rounds - 1)
    low = training.final_learning_rate_fraction
    cosine = low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share_done)))
    warm = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    return training.learning_rate * cosine * warm
