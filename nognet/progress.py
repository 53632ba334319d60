"""How a training goes on: a step that is done as a value, and the time that is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]

STEPS_LOGGER = "nognet.steps"
"""Every step of a site is logged here for whoever draws it, below every level that is shown."""
STEP_DONE = "step_done"
"""Attribute of log records that tell of a step: a `StepDone`."""


@dataclass(frozen=True)
class StepDone:
    """An optimiser step that a site has taken.

    Attributes:
        site: Who.
        round_number: From 1.
        rounds: In the study.
        step: From 1, in this round.
        steps: In this round.
        loss: Of the step; NaN under differential privacy, where it is not told.
    """

    site: str
    round_number: int
    rounds: int
    step: int
    steps: int
    loss: float

    @property
    def words(self) -> str:
        """Step and loss in words, without the loss under privacy.

        >>> StepDone("a", 1, 2, 3, 40, 0.5).words, StepDone("a", 1, 2, 3, 40, math.nan).words
        ('step 3 of 40, loss 0.5000', 'step 3 of 40')
        """
        loss = "" if math.isnan(self.loss) else f", loss {self.loss:.4f}"
        return f"step {self.step} of {self.steps}{loss}"


class Pace:
    """Estimates the time that is left by the mean pace since the first step.

    The first step loads and sets up, so it counts only as long as there is no other.
    """

    def __init__(self, total: float, clock: Clock = time.monotonic) -> None:
        """Start the clock.

        Args:
            total: What is to be done, in any unit.
            clock: Seconds.
        """
        self.total, self.clock, self.started = total, clock, clock()
        self._first: tuple[float, float] | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def left_s(self, done: float) -> float:
        """Estimate the seconds that are left; 0 when all is done. Call it after every step.

        Args:
            done: Above 0, in the unit of the total.
        """
        left, now = max(0.0, self.total - done), self.clock()
        if self._first is None:
            self._first = now, done
        since, before = self._first
        if done > before:
            return (now - since) / (done - before) * left
        return (now - self.started) / done * left
