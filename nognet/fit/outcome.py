"""What a training round at a site gives."""

from __future__ import annotations

from dataclasses import dataclass

from nognet.fit.weights import Weights


@dataclass(frozen=True)
class RoundOutcome:
    """What a training round gave.

    Attributes:
        weights: The site's weights after the round.
        n_pairs: Training pairs at the site.
        n_patients: Training patients at the site.
        steps: Optimiser steps taken.
        mean_loss: Mean training loss; None under differential privacy, where it may not leave.
        seconds: Wall time of the round.
        epsilon: Spent by this run up to and with this round; None without privacy.
        delta: At which `epsilon` holds.
        start_loss: Of the global weights before training, where the strategy asks for it.
        control: Mean of the site's own gradients, where the strategy asks for it.
    """

    weights: Weights
    n_pairs: int
    n_patients: int
    steps: int
    mean_loss: float | None
    seconds: float
    epsilon: float | None = None
    delta: float | None = None
    start_loss: float | None = None
    control: Weights | None = None
