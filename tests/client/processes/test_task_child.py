"""A task in a forked child: what of an exception leaves the site, and over whose connection."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.app import Context, Message
from nognet_client.processes.task_child import reply_of

from nognet.errors import GeometryError
from tests.builders.task_messages import CONTEXT, message

pytestmark = pytest.mark.usefixtures("flower_task")


def test_of_an_error_of_ours_class_and_code_leave(caplog: pytest.LogCaptureFixture) -> None:
    def app(_message: Message, _context: Context) -> Message:
        raise GeometryError("/data/Meier^Hans/1.dcm is sheared", code="sheared")

    with caplog.at_level(logging.ERROR, logger="nognet.worker"):
        reply, failure = reply_of(app, message(), CONTEXT)
    assert reply.error.reason == failure == "GeometryError:sheared"
    assert "Meier" not in repr(reply.error.__dict__)


def test_of_any_other_exception_its_class_leaves() -> None:
    def app(_message: Message, _context: Context) -> Message:
        raise ValueError("Meier^Hans")

    reply, failure = reply_of(app, message(), CONTEXT)
    assert reply.error.reason == failure == "ValueError:unexpected"


def test_a_reply_is_passed_on() -> None:
    answer = message()
    assert reply_of(lambda _m, _c: answer, message(), CONTEXT) == (answer, None)


def test_the_child_hands_its_reply_over_a_connection_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.builders.forked_task"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    ports: dict[str, set[int]] = {}
    for name, port in json.loads(done.stdout):
        ports.setdefault(name, set()).add(port)
    childs = ports.pop("push-messages") | ports.pop("push-task-output")
    assert ports.keys() == {"pull-task-input", "send-task-heartbeat"}
    assert childs.isdisjoint(set.union(*ports.values()))
