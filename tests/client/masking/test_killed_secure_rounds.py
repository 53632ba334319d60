"""A site killed at any moment of a private round in a secure sum: the same answer, or a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders.killed_program import told_by
from tests.builders.killed_round import STEPS
from tests.builders.killed_secure_round import ANSWERED, MOMENTS

REFUSED = "the session noted, no keys kept"
TRAINED_TWICE = {"charged", "in the middle of training", "trained, the reply not kept"}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("killed")
    return told_by("tests.builders.killed_secure_round", folder, timeout_s=900)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_whenever_it_is_killed_it_answers_alike_or_refuses_and_charges_what_it_took(
    told: dict[str, Any], moment: str
) -> None:
    found, step, edge = told[moment], MOMENTS[moment][0], MOMENTS[moment][2]
    assert found["ended"] == -9
    for account in (found["after_kill"], found["at_the_end"]):
        assert account["charged"] >= account["taken"]
    if moment == REFUSED:  # keys that may have been seen are never made anew under one name
        assert "second time" in found["refused"]
        return
    assert found["refused"] is None  # the round was played to its end
    assert found["at_the_end"]["charged"] == STEPS * (2 if moment in TRAINED_TWICE else 1)
    if step == "agree":  # ECDSA draws anew each time; the others took this one to the same sites
        assert list(json.loads(found["second"])) == list(json.loads(found["third"]))
        return
    assert found["second"] == found["third"]
    assert (found["first"] is not None) == (edge == ANSWERED)
    assert found["first"] in (None, found["second"])
