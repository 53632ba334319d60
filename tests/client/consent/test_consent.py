"""What a site accepts, limit by limit, and what it says when it declines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.consent import door
from nognet_client.consent.objections import about_study
from nognet_client.consent.served import ServedRecord
from nognet_client.consent.words import consent_words
from nognet_client.evaluating import evaluate, share
from nognet_client.request import study_digest
from nognet_client.tasks import Site, Work, join, train

import nognet
from nognet.config import ConsentConfig, PrivacyConfig, StudyConfig, parse_study_json
from nognet.errors import ConsentError
from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.wire.contract import PROTOCOL_VERSION, contract, contract_hash
from nognet.wire.records import JoinTask, ShareTask
from tests.builders.consent import (
    NOON,
    OTHER,
    PRIVACY,
    TOKEN,
    codes,
    evaluate_task,
    request,
    site_with,
    train_task,
)
from tests.builders.federation import make_study, stub_work

INSIDE: dict[str, Any] = {
    "studies": ["tiny", "other"],
    "releases": [nognet.__version__],
    "protocol": PROTOCOL_VERSION,
    "max_rounds": 2,
    "max_epsilon": 1e4,
    "require_privacy": True,
    "min_batch_size": 2,
    "max_steps_per_round": 2,
    "expires": date(2026, 3, 2),
    "timezone": "UTC",
    "metrics": ["dsc"],
}


def test_a_study_at_every_limit_is_inside(tmp_path: Path) -> None:
    study = make_study(tmp_path, privacy=PRIVACY)
    limits = {
        **INSIDE,
        "studies": [{"name": "tiny", "sha256": study_digest(study)}],
        "contract_hash": contract_hash(contract(study)),
    }
    assert codes(site_with(tmp_path, **limits), study) == []


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"studies": ["other"]}, "consent-study"),
        ({"studies": [{"name": "tiny", "sha256": "00" * 32}]}, "consent-study-digest"),
        ({"releases": ["0.0.1"]}, "consent-release"),
        ({"protocol": PROTOCOL_VERSION + 1}, "consent-protocol"),
        ({"contract_hash": "00" * 32}, "consent-contract"),
        ({"max_rounds": 1}, "consent-max-rounds"),
        ({"max_epsilon": 1e-3}, "consent-max-epsilon"),
        ({"min_batch_size": 3}, "consent-batch-size"),
        ({"max_steps_per_round": 1}, "consent-steps"),
        ({"expires": date(2026, 3, 1)}, "consent-expired"),
    ],
)
def test_one_step_beyond_a_limit_is_outside_by_that_code_alone(
    tmp_path: Path, limit: dict[str, Any], code: str
) -> None:
    site = site_with(tmp_path, **{**INSIDE, **limit})
    assert codes(site, make_study(tmp_path, privacy=PRIVACY)) == [code]


def test_without_privacy_there_is_no_epsilon_to_accept(tmp_path: Path) -> None:
    site = site_with(tmp_path, **INSIDE)
    assert codes(site, make_study(tmp_path)) == ["consent-privacy", "consent-max-epsilon"]


def test_the_sites_own_privacy_counts(tmp_path: Path) -> None:
    site = site_with(tmp_path, **INSIDE)
    own = site.config.model_copy(update={"privacy": PrivacyConfig.model_validate(PRIVACY)})
    assert codes(Site(own, site.prepared), make_study(tmp_path)) == []


def test_a_coordinator_of_another_release_is_outside(tmp_path: Path) -> None:
    site = site_with(tmp_path, releases=[nognet.__version__])
    assert codes(site, make_study(tmp_path), release="99.0.0") == ["consent-release"]
    (found,) = about_study(request(site, make_study(tmp_path), release="\x1b[31m" * 999), NOON)
    assert "\x1b" not in found.words
    (found,) = about_study(request(site, make_study(tmp_path)), NOON)
    assert "this site didn't join the run" in found.words
    assert len(found.words) < 300


def joining(study: StudyConfig, release: str = nognet.__version__) -> JoinTask:
    return JoinTask(study.for_sites(), {**contract(study), "nognet": release}, TOKEN)


def test_a_run_that_was_never_joined_has_no_release_to_accept(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, releases=[nognet.__version__])
    share_task = ShareTask(1, study.for_sites(), contract_hash(contract(study)), TOKEN)
    tasks: tuple[Callable[[], object], ...] = (
        lambda: train(train_task(study), site, stub_work()),
        lambda: evaluate(evaluate_task(study), site, stub_work()),
        lambda: share(share_task, site),
    )
    for answer in tasks:
        with pytest.raises(ConsentError, match="didn't join the run") as found:
            answer()
        assert found.value.code == "consent-release"
    join(joining(study), site, stub_work())
    train(train_task(study), site, stub_work())
    evaluate(evaluate_task(study), site, stub_work())


def test_the_release_of_the_last_joining_holds_for_a_runs_tasks(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, releases=[nognet.__version__])
    join(joining(study), site, stub_work())
    train(train_task(study), site, stub_work())
    with pytest.raises(ConsentError):
        join(joining(study, "99.0.0"), site, stub_work())
    with pytest.raises(ConsentError, match=r"release 99\.0\.0 at the coordinator"):
        train(train_task(study, 2), site, stub_work())
    join(joining(study), site, stub_work())
    train(train_task(study, 2), site, stub_work())


def test_a_strategy_that_needs_the_loss_is_outside_where_the_loss_stays(tmp_path: Path) -> None:
    study = make_study(tmp_path, strategy="qfedavg")
    assert codes(site_with(tmp_path / "a", metrics=["dsc", "loss"]), study) == []
    assert codes(site_with(tmp_path / "b", metrics=["dsc"]), study) == ["consent-metrics"]


def test_all_that_is_outside_is_said_at_once_with_what_to_change(tmp_path: Path) -> None:
    site = site_with(tmp_path, studies=["other"], max_rounds=1)
    with pytest.raises(ConsentError) as found:
        door.check_joining(request(site, make_study(tmp_path)))
    assert found.value.public_code == "ConsentError:consent-study"
    text = str(found.value)
    assert "asked: study 'tiny'; accepted: other (consent.studies in site.yaml" in text
    assert "asked: 2 rounds; accepted: at most 1 (consent.max_rounds in site.yaml" in text


def test_rounds_are_counted_over_runs_and_restarts(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, rounds=3), site_with(tmp_path, max_rounds=3)
    for number, token in ((1, TOKEN), (2, TOKEN), (1, OTHER)):
        train(train_task(study, number, token=token), site, stub_work())
    train(train_task(study, 2), site, stub_work())  # kept, so not done again
    with pytest.raises(ConsentError, match="one more after 3 rounds") as found:
        train(train_task(study, 3), site, stub_work())
    assert found.value.code == "consent-max-rounds"
    with pytest.raises(ConsentError):
        join(JoinTask(study.for_sites(), contract(study), "ef" * 16), site, stub_work())
    other = make_study(tmp_path, rounds=3, name="another")
    assert train(train_task(other, token="12" * 16), site, stub_work()).round_number == 1


def test_a_round_sent_again_with_other_weights_counts_again(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, max_rounds=2)
    task = train_task(study)
    train(task, site, stub_work())
    other = replace(task, weights=task.weights + np.float32(1))
    train(other, site, stub_work())
    with pytest.raises(ConsentError, match="one more after 2 rounds"):
        train(replace(task, weights=task.weights - np.float32(1)), site, stub_work())


def test_a_round_that_died_half_way_counts_once(tmp_path: Path) -> None:
    def dies(*_: Any, **__: Any) -> Any:
        raise MemoryError

    study, site = make_study(tmp_path), site_with(tmp_path, max_rounds=2)
    for _ in range(3):
        with pytest.raises(MemoryError):
            train(train_task(study), site, Work(train=dies))
    train(train_task(study, 1), site, stub_work())
    assert train(train_task(study, 2), site, stub_work()).round_number == 2


def test_weights_that_fit_nothing_cost_no_round(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, max_rounds=2)
    task = train_task(study)
    for bad in (task.weights[:-1], np.full_like(task.weights, np.nan)):
        with pytest.raises(Exception, match="weights received"):
            train(replace(task, weights=bad), site, stub_work())
    for number in (1, 2):
        train(train_task(study, number), site, stub_work())


def test_evaluations_are_counted(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, max_evaluations=2)
    for number in (1, 2, 2):
        evaluate(evaluate_task(study, number), site, stub_work())
    with pytest.raises(ConsentError) as found:
        evaluate(evaluate_task(study, 2, split="validation"), site, stub_work())
    assert found.value.code == "consent-max-evaluations"


def test_a_round_that_was_done_counts_again_once_its_reply_is_forgotten(tmp_path: Path) -> None:
    """Five evaluations push a training reply out of those kept; trained anew it has other noise."""
    study, site = make_study(tmp_path, rounds=5), site_with(tmp_path, max_rounds=5)
    train(train_task(study), site, stub_work())
    for number in range(1, 6):
        evaluate(evaluate_task(study, number), site, stub_work())
    train(train_task(study), site, stub_work())
    evaluate(evaluate_task(study, 1), site, stub_work())
    served = ServedRecord(site.config.state).read().of("tiny")
    assert (served.rounds, served.evaluations) == (2, 6)


def test_of_withheld_metrics_nothing_is_left_and_the_others_are_unchanged() -> None:
    rows = [
        PairRow("federated", f"p{i}", "growing" if i % 2 else "stable", values, 1.0 + i)
        for i, values in enumerate([{"dsc": 0.5, "psnr": 20.0}, {"dsc": 0.7, "psnr": 30.0}])
    ]
    everything = SiteStatistics.from_pairs(rows)
    kept = door.permitted(everything, ConsentConfig(metrics=("dsc",)))
    flat, before = kept.to_flat(), everything.to_flat()
    assert {key for key, value in flat.items() if value} <= {k for k in before if "|dsc|" in k}
    assert all(flat[key] == before[key] for key in before if "|dsc|" in key)
    assert SiteStatistics.from_flat(flat) == kept
    assert door.permitted(everything, ConsentConfig(metrics=("growth_auc",))).to_flat() == {
        key: value for key, value in before.items() if "|growth_auc|" in key
    }
    assert door.permitted(everything, ConsentConfig()) == everything
    assert door.permitted(everything, None) == everything


def test_replies_carry_no_figure_that_may_not_leave(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, metrics=["psnr"])
    assert train(train_task(study), site, stub_work()).mean_loss is None
    reply = evaluate(evaluate_task(study), site, stub_work())
    assert reply.statistics  # that there are none is a fault for the coordinator
    assert not any(reply.statistics.values())


def test_the_digest_is_the_same_at_coordinator_and_site(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    received = parse_study_json(study.for_sites())
    assert study_digest(study) == study_digest(received)
    assert study_digest(study) != study_digest(make_study(tmp_path, rounds=3))


def test_a_line_says_what_is_accepted(tmp_path: Path) -> None:
    site = site_with(tmp_path, studies=["tiny"], max_rounds=3, metrics=["dsc"])
    assert consent_words(site.config) == "studies tiny; max_rounds 3; metrics dsc"
    without = site.config.model_copy(update={"consent": None})
    assert "takes part in whatever study" in consent_words(without)
