"""Rounds that lack only sites which train at another hour of the day: played again later."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from nognet.config import StudyConfig
from nognet_server.rounds.asking import Trained
from nognet_server.rounds.loop import reasons_text, replies_needed
from nognet_server.rounds.messages import OUTSIDE_HOURS
from nognet_server.rounds.replies import Training

_log = logging.getLogger("nognet.server")
ASK_AGAIN_S = 300.0
_LONGEST_S = 26 * 3600.0  # within a day each site's hours have come


def pause(seconds: float) -> None:
    """Wait; apart from `time.sleep`, so that a test can let the night come at once."""
    time.sleep(seconds)


class HoursAwaited:
    """How long a round has waited for sites to come into their hours."""

    def __init__(
        self,
        study: StudyConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.study, self.clock = study, clock
        self._since: float | None = None

    def are_awaited(self, trained: Trained, *, round_number: int) -> bool:
        """Pause where a round has to be played again because of hours; else say no at once.

        A site that has trained for it meanwhile gives the reply it has kept. After a day it is not
        for the hours that the round lacks sites.
        """
        lacks = lacks_hours_alone(self.study, trained.training, asked=trained.asked)
        if not lacks or (self._since is not None and self.clock() - self._since > _LONGEST_S):
            self._since = None
            return False
        if self._since is None:
            self._since = self.clock()
            _log.info(
                "round %d waits: too few sites train at this hour (%s); they are asked again every "
                "%.0f s",
                round_number,
                reasons_text(trained.training.left_out),
                ASK_AGAIN_S,
            )
        pause(ASK_AGAIN_S)
        return True


def lacks_hours_alone(study: StudyConfig, training: Training, *, asked: int) -> bool:
    """Tell whether a round would be enough with the sites that are outside their hours."""
    later = sum(reason == OUTSIDE_HOURS for reason in training.left_out.values())
    usable, needed = len(training.counted), replies_needed(study, asked)
    return usable < needed <= usable + later
