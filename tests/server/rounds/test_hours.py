from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nognet_server.rounds import hours
from nognet_server.rounds.asking import Trained
from nognet_server.rounds.hours import ASK_AGAIN_S, HoursAwaited, lacks_hours_alone
from nognet_server.rounds.messages import OUTSIDE_HOURS
from nognet_server.rounds.replies import SecureSum, Training

from nognet.secagg.quantise import Counts
from nognet.wire.records import MaskedTrainReply, TrainReply
from tests.builders.federation import make_study


def training(usable: int, closed: int, failed: int) -> Training:
    replies = tuple(
        TrainReply(f"ok_{i}", 1, np.zeros(3, np.float32), 1, 1, 1, 0.5, 0.1) for i in range(usable)
    )
    later = {f"later_{i}": OUTSIDE_HOURS for i in range(closed)}
    return Training(replies, {**later, **{f"bad_{i}": "timeout" for i in range(failed)}})


@pytest.mark.parametrize(
    ("usable", "closed", "failed", "waits"),
    [
        (2, 1, 0, False),  # enough already
        (1, 1, 0, True),
        (0, 3, 0, True),
        (1, 0, 1, False),  # nobody to wait for
        (0, 1, 2, False),  # not enough even then
    ],
)
def test_a_round_waits_only_if_the_hours_are_what_it_lacks(
    tmp_path: Path, usable: int, closed: int, failed: int, waits: bool
) -> None:
    study = make_study(tmp_path, federation={"minimum_sites": 2})
    found = training(usable, closed, failed)
    assert lacks_hours_alone(study, found, asked=usable + closed + failed) is waits


def test_a_secure_sum_of_enough_sites_is_not_played_again_for_those_outside_their_hours(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, federation={"minimum_sites": 3})
    sites = {f"ok_{i}": MaskedTrainReply(f"ok_{i}", 1, "", np.zeros(3), 0.1) for i in range(3)}
    summed = SecureSum(sites, Counts(3, 3, 3), 0.1)
    found = replace(training(1, 2, 0), summed=summed)
    assert not lacks_hours_alone(study, found, asked=5)


def test_it_pauses_for_a_day_at_most_and_begins_anew_with_the_next_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, federation={"minimum_sites": 2})
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(hours, "pause", pause)
    awaited = HoursAwaited(study, clock=lambda: now)
    lacking = Trained(training(1, 1, 0), 2, {})
    assert not awaited.are_awaited(Trained(training(2, 0, 0), 2, {}), round_number=1)
    assert now == 0.0
    tries = 0
    while awaited.are_awaited(lacking, round_number=2):
        tries += 1
    assert 24 * 3600 < now < 27 * 3600
    assert tries == now / ASK_AGAIN_S
    assert awaited.are_awaited(lacking, round_number=3)
