"""Which updates are far longer than the usual."""

from __future__ import annotations

import logging

import pytest
from nognet_server.rounds.update_lengths import leave_out_long_updates

from nognet.config import FederationConfig
from tests.builders.replies import checked, delivered, trained


def test_an_update_far_longer_than_the_others_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    training = checked(*(delivered(trained(f"site_{n}", v)) for n, v in enumerate((1, 1.2, -0.9))))
    assert leave_out_long_updates(training, FederationConfig(), ()) == training
    poisoned = checked(
        delivered(trained("site_a", 1.0)),
        delivered(trained("site_b", 100.0)),
        delivered(trained("site_c", 1.1)),
    )
    with caplog.at_level(logging.WARNING):
        found = leave_out_long_updates(poisoned, FederationConfig(), ())
    assert [reply.site for reply in found.replies] == ["site_a", "site_c"]
    assert found.left_out == {"site_b": "update-norm"}
    assert found.faulty == {"site_b"}
    assert "site_b is left out of training: its update is 200 long" in caplog.text
    kept = leave_out_long_updates(poisoned, FederationConfig(max_update_ratio=None), ())
    assert kept == poisoned


def test_two_updates_are_held_against_those_of_the_rounds_before() -> None:
    training = checked(delivered(trained("site_a", 1.0)), delivered(trained("site_b", 100.0)))
    assert leave_out_long_updates(training, FederationConfig(), ()) == training
    found = leave_out_long_updates(training, FederationConfig(), (2.0, 2.2, 1.9))
    assert [reply.site for reply in found.replies] == ["site_a"]
