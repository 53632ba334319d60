from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from nognet_client.app import build_app
from nognet_client.guard import public_code
from nognet_client.processes.startup import tell_privacy
from nognet_client.reply_cache import ReplyCache, task_digest
from nognet_client.tasks import Work

from nognet.config import RoiConfig, StudyConfig
from nognet.errors import GeometryError, PrivacyError, TrainingError
from nognet.fit.budget import ledger_of
from nognet.fit.train import train_round
from nognet.fit.weights import initial_weights, weight_spec
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import FlatWeights, pack
from nognet.wire.records import (
    EvaluateReply,
    EvaluateTask,
    JoinReply,
    JoinTask,
    ReplyForm,
    TrainReply,
    TrainTask,
)
from tests.builders.federation import make_site, make_study, opened, stub_work

pytestmark = pytest.mark.usefixtures("flower_task")
TOKEN = "ab" * 16
PATIENT_TEXT = "Miller_Anna_1950-03-01 in /data/Miller"


def weights_of(study: StudyConfig) -> FlatWeights:
    return pack(initial_weights(study.network, study.seed), weight_spec(study.network))


def train_task(study: StudyConfig, *, round_number: int = 1, token: str = TOKEN) -> TrainTask:
    digest = contract_hash(contract(study))
    return TrainTask(round_number, study.for_sites(), digest, token, weights_of(study))


def train_content(task: TrainTask) -> RecordDict:
    arrays, config = task.to_records()
    return RecordDict({"arrays": arrays, "config": config})


def ask(app: ClientApp, site: Path | None, kind: str, content: RecordDict) -> Message:
    node_config: dict[str, Any] = {} if site is None else {"site-config": str(site)}
    context = Context(
        run_id=1, node_id=2, node_config=node_config, state=RecordDict(), run_config={}
    )
    return app(Message(content, 2, kind), context)


def raising(error: Exception) -> Work:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    return Work(train=fails, evaluate=fails)


class Counted:
    """Training that counts how often it is done."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        return stub_work().train(*arguments, **named)


def test_joining_tells_name_contract_counts_and_versions(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    task = JoinTask(study.for_sites(), contract(study), TOKEN)
    answer = ask(build_app(stub_work()), site, MessageType.QUERY, task.to_content())
    reply = JoinReply.from_content(answer.content)
    assert reply.site == "site_a"
    assert reply.contract == contract(study)
    assert {s: reply.counts[s]["pairs"] for s in reply.counts} == {
        "train": 3,
        "validation": 2,
        "test": 2,
    }
    assert {"nognet", "torch", "flwr", "protocol"} <= set(reply.versions)


def test_joining_a_study_of_another_roi_gives_the_sites_own_and_warns_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, "site_a")
    study = make_study(tmp_path, roi=RoiConfig(size_vox=48))
    task = JoinTask(study.for_sites(), contract(study), TOKEN)
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)
    answer = ask(build_app(stub_work()), site, MessageType.QUERY, task.to_content())
    assert JoinReply.from_content(answer.content).contract["roi.size_vox"] == "32"
    assert "roi.size_vox is 32 at the site, 48 in the study" in caplog.text


def test_a_run_over_the_sites_privacy_budget_is_refused_when_it_is_joined(tmp_path: Path) -> None:
    privacy = {"noise_multiplier": 1.0, "delta": 1e-2, "max_epsilon": 1.0}
    study, site = make_study(tmp_path, privacy=privacy), make_site(tmp_path, "site_a")
    task = JoinTask(study.for_sites(), contract(study), TOKEN)
    answer = ask(build_app(stub_work()), site, MessageType.QUERY, task.to_content())
    assert answer.has_error()
    assert answer.error.reason == "PrivacyBudgetError:budget-run"


@pytest.mark.parametrize("limit", [None, 90.0])
def test_a_target_that_nothing_bounds_over_runs_is_warned_of(
    tmp_path: Path,
    limit: float | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)
    privacy = {"target_epsilon": 2.0, "delta": 1e-2, "max_epsilon": limit}
    study, path = make_study(tmp_path), make_site(tmp_path, "site_a")
    path.write_text(f"{path.read_text()}privacy: {json.dumps(privacy)}\n")
    tell_privacy(opened(path)[0])
    assert ("every new run adds" in caplog.text) == (limit is None)
    caplog.clear()
    task = JoinTask(study.for_sites(), contract(study), TOKEN)
    assert ask(build_app(stub_work()), path, MessageType.QUERY, task.to_content()).has_content()
    assert ("every new run adds" in caplog.text) == (limit is None)


def test_a_run_over_the_budget_is_not_trained_without_joining_either(tmp_path: Path) -> None:
    """Two of its rounds would fit: joining is where the whole run is refused."""
    privacy = {"noise_multiplier": 2.0, "delta": 1e-2, "max_epsilon": 2.0}
    study = make_study(tmp_path, rounds=4, privacy=privacy)
    site, app = make_site(tmp_path, "site_a"), build_app(Work())
    task = JoinTask(study.for_sites(), contract(study), TOKEN)
    refused = "PrivacyBudgetError:budget-run"
    assert ask(app, site, MessageType.QUERY, task.to_content()).error.reason == refused
    for number in (1, 2):
        content = train_content(train_task(study, round_number=number))
        answer = ask(app, site, MessageType.TRAIN, content)
        assert answer.has_error()
        assert answer.error.reason == refused
    assert ledger_of(opened(site)[0]).entries() == ()


def test_training_gives_the_new_weights_and_counts(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    task = train_task(study)
    answer = ask(build_app(stub_work(step=0.5)), site, MessageType.TRAIN, train_content(task))
    reply = TrainReply.from_content(answer.content, length=len(task.weights))
    assert np.array_equal(reply.weights, task.weights + np.float32(0.5))
    assert (reply.site, reply.round_number, reply.n_pairs, reply.n_patients) == ("site_a", 1, 3, 3)


def test_a_model_that_tells_who_trained_it_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    seen: list[tuple[np.ndarray, np.ndarray, int, str]] = []

    def refuse(*facts: Any, round_number: int, run_token: str) -> None:
        _, _, _, sent, start = facts
        seen.append(
            (next(iter(sent.values())), next(iter(start.values())), round_number, run_token)
        )
        raise PrivacyError("for the site alone", code="leakage")

    monkeypatch.setattr("nognet_client.tasks.check_leakage", refuse)
    task = train_content(train_task(study))
    answer = ask(build_app(stub_work(step=0.5)), site, MessageType.TRAIN, task)
    assert answer.error.reason == "PrivacyError:leakage"
    [(sent, start, round_number, token)] = seen
    assert np.allclose(sent - start, 0.5)  # what would go out, and what the round began with
    assert (round_number, token) == (1, TOKEN)


def test_evaluating_gives_statistics_of_the_split_asked_for(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    task = EvaluateTask(
        1, "test", study.for_sites(), contract_hash(contract(study)), TOKEN, weights_of(study)
    )
    answer = ask(build_app(stub_work()), site, MessageType.EVALUATE, task.to_content())
    reply = EvaluateReply.from_content(answer.content)
    assert reply.split == "test"
    assert reply.statistics["copy|dsc|all|n_pairs"] == 2


def test_a_task_sent_again_is_answered_without_training_twice(tmp_path: Path) -> None:
    study, site, counted = make_study(tmp_path), make_site(tmp_path, "site_a"), Counted()
    content = train_content(train_task(study))
    work = Work(train=counted, evaluate=stub_work().evaluate)
    first = ask(build_app(work), site, MessageType.TRAIN, content)
    again = ask(build_app(work), site, MessageType.TRAIN, content)  # a new process, same disk
    length = len(weights_of(study))
    one = TrainReply.from_content(first.content, length=length)
    two = TrainReply.from_content(again.content, length=length)
    assert counted.calls == 1
    assert np.array_equal(one.weights, two.weights)
    assert dataclasses.replace(one, weights=two.weights) == two


def test_a_control_variate_is_made_once_and_kept_with_its_reply(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, strategy="scaffold"), make_site(tmp_path, "site_a")
    task = dataclasses.replace(train_task(study), correction=0 * weights_of(study))
    form, calls = ReplyForm(control=True), []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(named["correction"])
        return train_round(*arguments, **named)

    work = Work(train=counted, evaluate=stub_work().evaluate)
    answers = [ask(build_app(work), site, MessageType.TRAIN, train_content(task)) for _ in range(2)]
    one, two = (
        TrainReply.from_content(a.content, length=task.weights.size, form=form) for a in answers
    )
    assert len(calls) == 1
    assert one.control is not None
    assert two.control is not None
    assert one.control.any()
    assert np.array_equal(one.control, two.control)


@pytest.mark.parametrize("change", ["round", "run", "weights", "correction"])
def test_another_task_is_trained_anew(tmp_path: Path, change: str) -> None:
    study, site, counted = make_study(tmp_path), make_site(tmp_path, "site_a"), Counted()
    app = build_app(Work(train=counted, evaluate=stub_work().evaluate))
    task = train_task(study)
    other = {
        "round": dataclasses.replace(task, round_number=2),
        "run": dataclasses.replace(task, run_token="cd" * 16),
        "weights": dataclasses.replace(task, weights=task.weights + np.float32(1)),
        "correction": dataclasses.replace(task, correction=0 * task.weights),
    }[change]
    for each in (task, other):
        assert ask(app, site, MessageType.TRAIN, train_content(each)).has_content()
    assert counted.calls == 2


def test_a_damaged_kept_reply_is_done_anew(tmp_path: Path) -> None:
    study, site, counted = make_study(tmp_path), make_site(tmp_path, "site_a"), Counted()
    app = build_app(Work(train=counted, evaluate=stub_work().evaluate))
    content = train_content(train_task(study))
    ask(app, site, MessageType.TRAIN, content)
    (kept,) = (site.parent / "state" / "replies").rglob("*.reply")
    kept.write_bytes(b"cut")
    assert ask(app, site, MessageType.TRAIN, content).has_content()
    assert counted.calls == 2


def test_only_the_last_replies_are_kept(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    cache = ReplyCache(tmp_path)
    for number in range(1, 10):
        task = train_task(study, round_number=number)
        reply = TrainReply("site_a", number, task.weights, 1, 1, 1, 0.5, 0.1)
        cache.keep(task, task_digest(task), reply)
    names = sorted(path.name for path in tmp_path.rglob("*.reply"))
    assert names == [f"{number:05d}-train.reply" for number in (6, 7, 8, 9)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError(PATIENT_TEXT), "ValueError:unexpected"),
        (TrainingError(PATIENT_TEXT, code="loss-not-finite"), "TrainingError:loss-not-finite"),
        (GeometryError(PATIENT_TEXT, code="Sheared by 14°"), "GeometryError:sheared-by-14"),
        (KeyError(PATIENT_TEXT), "KeyError:unexpected"),
    ],
)
@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE])
def test_of_a_failure_only_class_and_code_leave_the_site(
    tmp_path: Path, error: Exception, code: str, kind: str
) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    task = train_task(study)
    content = train_content(task)
    if kind == MessageType.EVALUATE:
        content = EvaluateTask(
            1, "test", task.study_json, task.contract_hash, TOKEN, task.weights
        ).to_content()
    answer = ask(build_app(raising(error)), site, kind, content)
    assert answer.has_error()
    assert answer.error.reason == code
    assert PATIENT_TEXT not in repr(answer)
    assert public_code(error) == code


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        ("no-config", "ConfigError:config"),
        ("misspelt", "ConfigError:config"),
        ("other-contract", "ContractError:contract-changed"),
        ("bad-content", "WireError:records"),
        ("bad-study", "ConfigError:config"),
    ],
)
def test_what_is_wrong_at_the_edge_is_told_by_its_code(
    tmp_path: Path, break_it: str, code: str
) -> None:
    study = make_study(tmp_path)
    site: Path | None = make_site(tmp_path, "site_a")
    task = train_task(study)
    if break_it == "no-config":
        site = None
    elif break_it == "misspelt" and site is not None:
        site.write_text(site.read_text() + "sedd: 4\n")
    elif break_it == "other-contract":
        task = dataclasses.replace(task, contract_hash="00" * 32)
    elif break_it == "bad-study":
        task = dataclasses.replace(task, study_json='{"name": "x", "roundz": 3}')
    content = train_content(task) if break_it != "bad-content" else RecordDict()
    answer = ask(build_app(stub_work()), site, MessageType.TRAIN, content)
    assert answer.has_error()
    assert answer.error.reason == code


def test_a_reply_that_cannot_be_kept_is_sent_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = train_task(make_study(tmp_path), round_number=1)
    reply = TrainReply("site_a", 1, task.weights, 1, 1, 1, 0.5, 0.1)
    (tmp_path / "replies").write_text("a file in the way of the folder")
    with caplog.at_level(logging.WARNING):
        ReplyCache(tmp_path).keep(task, task_digest(task), reply)
    assert "round 1: the reply can't be kept" in caplog.text
    assert "it is sent all the same" in caplog.text
