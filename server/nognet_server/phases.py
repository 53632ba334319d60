"""In which phase a run is, told as values beside the lines that people read."""

from __future__ import annotations

import logging
from dataclasses import dataclass

LOGGER = "nognet.phases"
"""Phases are logged here for whoever follows them, below every level that is shown."""
PHASE = "phase"
"""Attribute of log records that tell of a phase: a `Phase`."""


@dataclass(frozen=True)
class Phase:
    """A phase that has begun.

    Attributes:
        state: ``waiting`` (for sites), ``training``, ``evaluating`` or ``testing``.
        round_number: The round that is played or tested; None before the first.
        text: What more there is to say to people.
    """

    state: str
    round_number: int | None = None
    text: str = ""


def tell_phase(state: str, *, round_number: int | None = None, text: str = "") -> None:
    """Tell that a phase has begun."""
    phase = Phase(state, round_number, text)
    logging.getLogger(LOGGER).debug("%s %s", state, text, extra={PHASE: phase})
