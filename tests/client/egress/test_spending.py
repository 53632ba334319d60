"""What a private reply says of epsilon is what the ledger has of its run."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import MessageType
from nognet_client.app import build_app

from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from tests.builders.egress import (
    RUN,
    ask,
    events,
    receipt,
    train_content,
    train_task,
)
from tests.builders.federation import make_site, make_study, stub_work
from tests.builders.private_work import private_work

OTHER_RUN = "cd" * 16
PRIVACY = {"noise_multiplier": 2.0, "delta": 1e-3}


def epsilon(rounds: int) -> float:
    """Of so many rounds of 2 steps; two of the site's three patients a step."""
    return PrivacyHistory((NoisedSteps(2.0, 2 / 3, 2 * rounds),)).epsilon(1e-3)


@pytest.mark.parametrize("loss", [None, 0.5])
def test_under_differential_privacy_no_loss_leaves(tmp_path: Path, loss: float | None) -> None:
    """Also if a training function gives one: the gate's form has no place for it."""
    study, site = make_study(tmp_path, privacy=PRIVACY), make_site(tmp_path, "site_a")
    app = build_app(private_work(mean_loss=loss))
    answer = ask(app, site, MessageType.TRAIN, train_content(train_task(study)))
    assert answer.has_content() == (loss is None)
    if loss is not None:
        assert answer.error.reason == "EgressError:numbers"


def test_a_reply_tells_what_its_run_spent_and_the_receipt_what_all_did(tmp_path: Path) -> None:
    site, app = make_site(tmp_path, "site_a"), build_app(private_work())
    studies = [make_study(tmp_path, name=name, privacy=PRIVACY) for name in ("tiny", "other")]
    contents = [
        train_content(train_task(study, run=run, round_number=number))
        for study, run, number in (
            (studies[0], OTHER_RUN, 1),
            (studies[1], RUN, 1),
            (studies[1], RUN, 2),
            (studies[1], RUN, 1),  # given again, from the kept reply
        )
    ]
    answers = [ask(app, site, MessageType.TRAIN, content) for content in contents]
    told = [answer.content.metric_records["metrics"]["epsilon"] for answer in answers]
    assert told == [epsilon(1), epsilon(1), epsilon(2), epsilon(1)]
    receipts = [
        receipt(site, f"{name}.json") for name in ("00001-train", "00002-train", "00001-train.2")
    ]
    assert [found["epsilon"] for found in receipts] == told[1:]
    charged = [epsilon(2), epsilon(3), epsilon(2)]
    assert [found["epsilon_charged"] for found in receipts] == charged
    assert [event["epsilon_charged"] for event in events(site)[1:]] == charged
    for answer in answers:
        assert "epsilon_charged" not in answer.content.metric_records["metrics"]


def test_what_all_studies_spent_together_does_not_leave(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, privacy=PRIVACY), make_site(tmp_path, "site_a")
    app = build_app(private_work(told="charged"))
    first = train_content(train_task(study, run=OTHER_RUN))
    assert ask(app, site, MessageType.TRAIN, first).has_content()  # the same, in the first run
    answer = ask(app, site, MessageType.TRAIN, train_content(train_task(study)))
    assert answer.error.reason == "EgressError:numbers"


def test_what_was_not_charged_does_not_leave_as_private(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, privacy=PRIVACY), make_site(tmp_path, "site_a")
    answer = ask(build_app(stub_work()), site, MessageType.TRAIN, train_content(train_task(study)))
    assert answer.error.reason == "EgressError:not-charged"
