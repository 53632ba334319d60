"""Nothing leaves a site without its record."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nognet_client.egress.record as record_module
import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MessageType, RecordDict
from nognet_client.app import build_app
from nognet_client.egress.receipt import About, error_receipt, receipt_of
from nognet_client.egress.record import record
from nognet_client.egress.replies import of_sharing
from nognet_client.processes.task_child import reply_of
from nognet_client.site import Site
from nognet_client.tasks import Work

from nognet.audit.log import AuditLog, egress_folder
from nognet.audit.verify import read_entries, verify
from nognet.errors import EgressError, TrainingError
from nognet.wire.records import (
    ShareReply,
    ShareTask,
    TrainReply,
    content_digest,
)
from tests.builders.egress import (
    RUN,
    ask,
    evaluate_task,
    events,
    join_task,
    receipt,
    state_of,
    train_content,
    train_task,
    weights_of,
)
from tests.builders.federation import make_site, make_study, opened, stub_work

OTHER_RUN = "cd" * 16
TEXT = "Miller_Anna_1950-03-01"


def raising(error: Exception) -> Work:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    return Work(train=fails, evaluate=fails)


def test_a_training_reply_leaves_its_receipt_and_a_line(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    task = train_task(study)
    answer = ask(build_app(stub_work(step=0.5)), site, MessageType.TRAIN, train_content(task))
    reply = TrainReply.from_content(answer.content, length=task.weights.size)
    found = receipt(site, "00001-train.json")
    assert found["payload_sha256"] == content_digest(answer.content)
    vector = found["vectors"]["weights"]
    assert vector["sha256"] == hashlib.sha256(reply.weights.tobytes()).hexdigest()
    assert vector["bytes"] == reply.weights.nbytes == sum(t["bytes"] for t in found["tensors"])
    moved = np.linalg.norm(reply.weights.astype(np.float64) - task.weights)
    assert found["update_norm"] == pytest.approx(moved)
    assert found["counts"] == {"n-pairs": 3, "n-patients": 3}
    (event,) = events(site)
    assert (event["kind"], event["round"], event["decision"]) == ("train", 1, "allowed")
    assert event["payload_sha256"] == found["payload_sha256"]
    path = state_of(site) / event["receipt"]
    assert event["receipt_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_a_message_that_leaves_again_has_a_receipt_of_its_own(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    content = train_content(train_task(study))
    for _ in range(2):
        assert ask(build_app(stub_work()), site, MessageType.TRAIN, content).has_content()
    assert receipt(site, "00001-train.json") == receipt(site, "00001-train.2.json")
    assert len(events(site)) == 2


class Killed(BaseException):
    """A process that ends here."""


@pytest.mark.parametrize(
    ("owner", "name", "after", "lines"),
    [
        (record_module, "write_text_atomic", False, ["join-error"]),
        (AuditLog, "append", False, ["recovered", "join-error"]),
        (AuditLog, "append", True, ["join-error", "join-error"]),
    ],
)
def test_a_crash_at_any_point_of_the_record_leaves_no_fault(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    after: bool,
    lines: list[str],
) -> None:
    """The receipt's clean-up doesn't run where a process is killed."""
    about = About("join-error", RUN)
    answer = error_receipt("site_a", about, "WireError:keys")
    usual = getattr(owner, name)

    def killed(*arguments: Any, **named: Any) -> Any:
        if after:
            usual(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            record(tmp_path, about, answer)
    log = AuditLog(egress_folder(tmp_path))
    assert verify(log).faults == ()
    record(tmp_path, about, answer)
    assert verify(log).faults == ()
    found = [entry.event["kind"] for _, entry in read_entries(log.path) if entry is not None]
    assert found == lines


def test_what_leaves_for_the_thousandth_time_finds_its_name_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks over and over neither slows the record down nor uses its names up."""
    tried: list[str] = []
    AuditLog(egress_folder(tmp_path)).append({"kind": "join"})  # receipts alone would be a fault
    claim = os.open

    def noting(path: Any, *how: Any) -> int:
        tried.append(Path(path).name)
        return claim(path, *how)

    folder = tmp_path / "egress" / "receipts" / RUN
    folder.mkdir(parents=True)
    (folder / "join-error.json").touch()
    for number in range(2, 1000):
        (folder / f"join-error.{number}.json").touch()
    about = About("join-error", RUN)
    monkeypatch.setattr(os, "open", noting)
    path = record(tmp_path, about, error_receipt("site_a", about, "WireError:keys"))
    assert path.name == "join-error.1000.json"
    assert [name for name in tried if name.startswith("join-error.")] == [path.name]


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY])
def test_nothing_leaves_that_can_not_be_recorded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)
    contents = {
        MessageType.TRAIN: train_content(train_task(study)),
        MessageType.EVALUATE: evaluate_task(study).to_content(),
        MessageType.QUERY: join_task(study).to_content(),
    }
    folder = state_of(site)
    folder.parent.mkdir(parents=True)
    folder.write_text("a file in the way of the folder")
    answer = ask(build_app(stub_work()), site, kind, contents[kind])
    assert not answer.has_content()
    assert answer.error.reason == "EgressError:not-recorded"
    assert "so nothing leaves" in caplog.text


def test_nothing_leaves_after_the_log_was_cut(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    app = build_app(stub_work())
    for number in (1, 2):
        task = train_task(study, round_number=number)
        assert ask(app, site, MessageType.TRAIN, train_content(task)).has_content()
    log = AuditLog(state_of(site))
    log.path.write_bytes(log.path.read_bytes().splitlines(keepends=True)[0])
    answer = ask(app, site, MessageType.TRAIN, train_content(train_task(study, round_number=3)))
    assert answer.error.reason == "EgressError:audit-damaged"


@pytest.mark.parametrize("head", ['{"index": 1e999, "hash": ""}', "[" * 100_000, "[]", "\0"])
def test_a_damaged_head_lets_nothing_out_but_a_code(tmp_path: Path, head: str) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    app = build_app(stub_work())
    assert ask(app, site, MessageType.TRAIN, train_content(train_task(study))).has_content()
    AuditLog(state_of(site)).head_path.write_text(head)
    task = train_task(study, round_number=2)
    answer = ask(app, site, MessageType.TRAIN, train_content(task))
    assert answer.error.reason == "EgressError:audit-damaged"


def test_what_goes_wrong_in_recording_an_error_leaves_as_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise ValueError(TEXT)

    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    monkeypatch.setattr(AuditLog, "append", fails)
    answer = ask(build_app(stub_work()), site, MessageType.TRAIN, train_content(train_task(study)))
    assert answer.error.reason == "EgressError:not-recorded"


def test_an_error_is_recorded_as_class_and_code(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a")
    app = build_app(raising(TrainingError(TEXT, code="loss-not-finite")))
    answer = ask(app, site, MessageType.TRAIN, train_content(train_task(study)))
    assert answer.error.reason == "TrainingError:loss-not-finite"
    (event,) = events(site)
    assert event["code"] == answer.error.reason
    assert receipt(site, "00001-train-error.json")["decision"] == "error"
    assert TEXT not in (state_of(site) / "audit.jsonl").read_text()


def test_what_the_worker_says_of_a_failed_task_is_recorded(tmp_path: Path) -> None:
    site = make_site(tmp_path, "site_a")
    context = Context(
        run_id=1,
        node_id=2,
        node_config={"site-config": str(site)},
        state=RecordDict(),
        run_config={},
    )

    def app(_message: Message, _context: Context) -> Message:
        raise ValueError(TEXT)

    content = train_content(train_task(make_study(tmp_path)))
    reply, failure = reply_of(app, Message(content, 2, MessageType.TRAIN), context)
    assert reply.error.reason == failure == "ValueError:unexpected"
    assert [event["code"] for event in events(site)] == ["ValueError:unexpected"]


def test_a_long_update_does_not_leave(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a", max_update_norm=1.0)
    content = train_content(train_task(study))
    answer = ask(build_app(stub_work(step=0.5)), site, MessageType.TRAIN, content)
    assert answer.error.reason == "EgressError:update-norm"


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_a_control_variate_is_in_the_receipt_or_does_not_leave(
    tmp_path: Path, scale: float
) -> None:
    study, site = make_study(tmp_path, strategy={"name": "scaffold"}), make_site(tmp_path, "site_a")

    def train(*arguments: Any, **named: Any) -> Any:
        outcome = stub_work().train(*arguments, **named)
        control = {name: torch.full_like(t, scale) for name, t in outcome.weights.items()}
        return replace(outcome, control=control)

    app = build_app(replace(stub_work(), train=train))
    answer = ask(app, site, MessageType.TRAIN, train_content(train_task(study)))
    if scale > 1:
        assert answer.error.reason == "EgressError:control-norm"
        return
    found = receipt(site, "00001-train.json")
    control = found["control"]
    assert control["norm"] == pytest.approx(math.sqrt(found["vectors"]["control"]["length"]))
    assert control["norm"] < control["limit"]
    names = [tensor["name"] for tensor in found["tensors"]]
    assert [tensor["name"] for tensor in control["tensors"]] == names


@pytest.mark.parametrize("scale", [1.0, 11.0])
def test_a_shared_model_is_in_the_receipt_or_does_not_leave(tmp_path: Path, scale: float) -> None:
    study, config = make_study(tmp_path), opened(make_site(tmp_path, "site_a"))
    task = ShareTask(1, study.for_sites(), "0" * 64, RUN)
    reply = ShareReply("site_a", 1, np.float32(scale) * weights_of(study))
    if scale > 1:
        with pytest.raises(EgressError) as refused:
            of_sharing(task, reply, Site(*config))
        assert refused.value.code == "model-norm"
        return
    out = of_sharing(task, reply, Site(*config))
    told = receipt_of("site_a", out.about, out.content, out.facts)
    assert told["model_norm"] == pytest.approx(np.linalg.norm(reply.weights))
    assert told["max_model_norm"] == pytest.approx(10 * told["model_norm"])
    assert sum(tensor["bytes"] for tensor in told["tensors"]) == reply.weights.nbytes
