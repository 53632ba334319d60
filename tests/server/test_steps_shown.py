"""A simulation's steps: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import contextlib
import logging

from nognet_server.simulation import steps_shown

from nognet.progress import STEPS_LOGGER
from tests.builders.terminal import on_terminal, python

SCRIPT = """
import time
from nognet.console import set_up_logging
from nognet_client.tasks import _progress
from nognet_server.simulation.steps_shown import steps_shown

set_up_logging()
with steps_shown(["site_a", "site_b"], 1):
    for site in ("site_a", "site_b"):
        tell = _progress(site, 1, 1)
        for step in (1, 2):
            tell(step, 2, 0.5)
            time.sleep(0.4)
"""


def test_what_sites_log_of_their_steps_is_drawn_on_a_terminal() -> None:
    shown = on_terminal(python(SCRIPT))
    assert shown.exit_code == 0, shown.raw
    assert shown.lines == []
    assert "site_b" in shown.plain
    assert shown.plain.count("step 2 of 2, loss 0.5000") > 1


def test_elsewhere_nothing_is_listened_to() -> None:
    logger = logging.getLogger(STEPS_LOGGER)
    with steps_shown.steps_shown(["site_a"], 1):
        assert logger.handlers == []
        assert not logger.isEnabledFor(logging.DEBUG)


def test_the_log_is_as_it_was_after_an_error() -> None:
    logger = logging.getLogger(STEPS_LOGGER)
    before = logger.level, logger.propagate, logger.handlers[:]
    with contextlib.suppress(ValueError), steps_shown._handled(logging.NullHandler()):
        assert logger.isEnabledFor(logging.DEBUG)
        raise ValueError("a fault")
    assert (logger.level, logger.propagate, logger.handlers) == before
