"""The worker's guard: what of an exception leaves the site."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from nognet_client.processes import worker

from nognet.errors import GeometryError
from nognet.supervision.events import EventWriter

pytestmark = pytest.mark.usefixtures("flower_task")


def message(round_number: int | None = 3) -> Message:
    values = {} if round_number is None else {"server-round": round_number}
    metadata = Metadata(
        run_id=1,
        message_id="1",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type="train",
    )
    return make_message(metadata, content=RecordDict({"config": ConfigRecord(values)}))


CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def test_of_an_error_of_ours_class_and_code_leave(caplog: pytest.LogCaptureFixture) -> None:
    def app(_message: Message, _context: Context) -> Message:
        raise GeometryError("/data/Meier^Hans/1.dcm is sheared", code="sheared")

    with caplog.at_level(logging.ERROR, logger="nognet.worker"):
        reply, failure = worker._reply_of(app, message(), CONTEXT)
    assert reply.error.reason == failure == "GeometryError:sheared"
    assert "Meier" not in repr(reply.error.__dict__)


def test_of_any_other_exception_its_class_leaves() -> None:
    def app(_message: Message, _context: Context) -> Message:
        raise ValueError("Meier^Hans")

    reply, failure = worker._reply_of(app, message(), CONTEXT)
    assert reply.error.reason == failure == "ValueError:unexpected"


def test_a_reply_is_passed_on() -> None:
    answer = message()
    assert worker._reply_of(lambda _m, _c: answer, message(), CONTEXT) == (answer, None)


def test_the_round_is_read_for_the_status_line() -> None:
    assert worker._round_of(message(7)) == 7
    assert worker._round_of(message(None)) is None
    assert worker._round_of(Message(Error(0, "of no task"), reply_to=message())) is None


def test_a_task_that_can_not_be_read_ends_and_the_worker_lives_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []

    def unreadable(_client: object) -> Any:
        raise ValueError("Meier^Hans")

    monkeypatch.setattr(worker.flower, "pull_task_input", unreadable)
    monkeypatch.setattr(worker.flower, "push_task_output", lambda _, **how: told.append(how))
    with (tmp_path / "events").open("wb") as file:
        worker.run_task("127.0.0.1:1", "token", lambda m, _: m, EventWriter(file.fileno()))
    assert [(how["sub_status"], how["details"]) for how in told] == [("failed", "")]
