"""A site killed at any moment of a private round: nothing is under-counted, the round goes on."""

from __future__ import annotations

from typing import Any

import pytest

from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from tests.builders.killed_program import told_by
from tests.builders.killed_round import MOMENTS, STEPS

RATE = 2 / 3
EXPECTED: dict[str, tuple[list[str], list[str]]] = {
    "before the charge": ([], ["taken"]),
    "charged": (["planned"], ["planned", "taken"]),
    "in the middle of training": (["planned"], ["planned", "taken"]),
    "trained, not confirmed": (["planned"], ["planned", "taken"]),
    "trained, the reply not kept": (["taken"], ["taken", "taken"]),
    "the reply kept, not sent": (["taken"], ["taken"]),
}
"""States of the charges after the kill, and after the task came again."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("killed")
    return told_by("tests.builders.killed_round", folder, timeout_s=600)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_whenever_it_is_killed_what_was_taken_is_charged_and_the_round_goes_on(
    told: dict[str, Any], moment: str
) -> None:
    found = told[moment]
    assert (found["ended"], found["ended_again"]) == (-9, 0)
    killed, done = found["killed"], found["done"]
    assert (killed["states"], done["states"]) == EXPECTED[moment]
    for after in (killed, done):
        assert after["charged"] >= after["taken"]
        assert after["charged"] == STEPS * len(after["states"])
    assert killed["replies"] == []
    spent = PrivacyHistory((NoisedSteps(2.0, RATE, done["charged"]),)).epsilon(1e-2)
    assert done["epsilon"] == spent
    assert done["replies"] == [f"replied {spent}"]
