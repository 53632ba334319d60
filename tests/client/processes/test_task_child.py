"""The guard around a task's app: what of an exception leaves the site."""

from __future__ import annotations

import logging

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
