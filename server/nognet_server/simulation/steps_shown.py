"""The sites' steps on a terminal: a bar that listens to their log, as the apps share no more."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from nognet.progress import STEP_DONE, STEPS_LOGGER, Pace, StepDone
from nognet.training_bar import TrainingBar, training_bar


@contextlib.contextmanager
def steps_shown(sites: Sequence[str], rounds: int) -> Iterator[None]:
    """Draw a bar for a `with` block where stderr is a terminal; elsewhere log lines tell of steps.

    Args:
        sites: Names of all that are simulated.
        rounds: In the study.
    """
    with training_bar(sites, Pace(rounds)) as bar:
        if bar is None:
            yield
            return
        with _handled(_StepHandler(bar)):
            yield


class _StepHandler(logging.Handler):
    """Hands each step to the bar."""

    def __init__(self, bar: TrainingBar) -> None:
        super().__init__()
        self._bar = bar

    def emit(self, record: logging.LogRecord) -> None:
        done = getattr(record, STEP_DONE, None)
        if isinstance(done, StepDone):
            self._bar.tell(done)


@contextlib.contextmanager
def _handled(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger(STEPS_LOGGER)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
