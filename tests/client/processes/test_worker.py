"""The worker: tasks that can't be read, and what is told of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message
from nognet_client.processes import worker

from nognet.supervision.events import EventWriter
from tests.builders.task_messages import message

pytestmark = pytest.mark.usefixtures("flower_task")


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
