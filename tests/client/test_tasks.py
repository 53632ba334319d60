"""What a site logs of its steps, and what of private training it tells or refuses."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nognet_client.personal.model import OwnModel
from nognet_client.site import Site
from nognet_client.tasks import Work, _progress, train

from nognet.config import PrivacyConfig, StudyConfig
from nognet.errors import PrivacyError, WireError
from nognet.fit.budget import ledger_of
from nognet.fit.outcome import RoundOutcome
from nognet.fit.parts import local_names, part_of, shared_spec
from nognet.fit.weights import initial_weights
from nognet.progress import STEP_DONE, STEPS_LOGGER, StepDone
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import TrainTask
from tests.builders.clock import Clock
from tests.builders.federation import make_site, make_study, opened, stub_work
from tests.builders.private_work import private_work

PRIVACY = {"noise_multiplier": 2.0, "delta": 1e-2}


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


def task_of(study: StudyConfig, number: int = 1, *, run: str = "ab" * 16) -> TrainTask:
    spec = shared_spec(study)
    first = part_of(initial_weights(study.network, study.seed), spec)
    digest = contract_hash(contract(study))
    return TrainTask(number, study.for_sites(), digest, run, pack(first, spec))


@pytest.mark.parametrize(
    ("took_s", "told_s"), [(0.1, 10.0), (10.0, 10.0), (12.3, 20.0), (119.9, 120.0)]
)
def test_under_privacy_seconds_say_little_of_who_was_drawn(
    tmp_path: Path, took_s: float, told_s: float
) -> None:
    site = Site(*opened(make_site(tmp_path, "site_a")))
    private = make_study(tmp_path, privacy=PRIVACY)
    assert train(task_of(private), site, private_work(seconds=took_s)).seconds == told_s
    usual = train(task_of(make_study(tmp_path), run="cd" * 16), site, stub_work())
    assert usual.seconds % 10


def test_privacy_that_is_set_within_a_run_takes_no_local_parts_of_open_rounds(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, rounds=3, personalisation={"local": "norms"})
    config, prepared = opened(make_site(tmp_path, "site_a"))
    train(task_of(study, 1), Site(config, prepared), stub_work())
    privacy = PrivacyConfig.model_validate(PRIVACY)
    site = Site(config.model_copy(update={"privacy": privacy}), prepared)
    with pytest.raises(PrivacyError) as caught:
        train(task_of(study, 2), site, private_work())
    assert caught.value.code == "open-local-parts"
    assert ledger_of(config).entries() == ()
    for number in (1, 2):  # the first one anew, from the study's own first parts
        assert train(task_of(study, number), site, private_work()).epsilon is not None


@pytest.mark.parametrize("diverged", ["control", "shared", "local"])
def test_a_round_that_diverged_leaves_no_trace_of_itself(tmp_path: Path, diverged: str) -> None:
    """What would leave is checked before what stays is kept; asked again, the round is trained."""
    study = make_study(tmp_path, strategy="scaffold", personalisation={"local": "norms"})
    site = Site(*opened(make_site(tmp_path, "site_a")))
    local, sound = local_names(study), stub_work()

    def diverging(*arguments: Any, **named: Any) -> RoundOutcome:
        outcome = sound.train(*arguments, **named)
        spoilt = {
            name: tensor * math.nan if (name in local) == (diverged == "local") else tensor
            for name, tensor in outcome.weights.items()
        }
        if diverged == "control":
            return replace(outcome, control=spoilt)
        return replace(outcome, weights=spoilt, control=outcome.weights)

    first = train(task_of(study), site, sound)
    own = OwnModel(study, site.config, site.prepared, "ab" * 16)
    with pytest.raises(WireError) as caught:
        train(task_of(study, 2), site, Work(train=diverging))
    assert caught.value.public_code == "WireError:non-finite"
    assert [path.name for path in own.state.folder.iterdir()] == ["00001.local"]
    own.whole_after(first.weights, 2)
    train(task_of(study, 2), site, sound)
    assert len(list(own.state.folder.iterdir())) == 2
