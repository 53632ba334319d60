"""What a site logs of its steps."""

from __future__ import annotations

import logging
import math

import pytest
from nognet_client.tasks import _progress

from nognet.progress import STEP_DONE, STEPS_LOGGER, StepDone
from tests.builders.clock import Clock


def messages(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == logger]


@pytest.fixture(autouse=True)
def _propagating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)


@pytest.mark.parametrize(("loss", "words"), [(0.5, ", loss 0.5000"), (math.nan, "")])
def test_a_line_a_quarter_of_a_minute_with_the_time_left(
    loss: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nognet")
    clock = Clock()
    tell = _progress("site_a", 3, 5, clock=clock)
    for step in range(1, 11):
        clock.now += 20.0 if step == 1 else 6.0
        tell(step, 10, loss)
    assert messages(caplog, "nognet.client") == [
        f"site_a: round 3, step 1 of 10{words}; 180 s left",
        f"site_a: round 3, step 4 of 10{words}; 36 s left",
        f"site_a: round 3, step 7 of 10{words}; 18 s left",
    ]
    assert messages(caplog, STEPS_LOGGER) == []


def test_each_step_is_there_for_whoever_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, STEPS_LOGGER)
    _progress("site_a", 3, 5)(1, 2, 0.5)
    [record] = caplog.records
    assert getattr(record, STEP_DONE) == StepDone("site_a", 3, 5, 1, 2, 0.5)
