"""Every undocumented name of Flower that the site leans on exists and means the same."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import flwr
import pytest
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.retry import http_retry
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from nognet_client.processes import flower_internals as flower

from tests.builders.task_messages import message


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    """Put Flower back as it was."""
    client, clock = fleet_http_connection.FleetHttpClient, start_client_internal.time
    delay = http_retry.MAX_RETRY_DELAY
    pull = start_client_internal._pull_and_store_message
    push = start_client_internal._push_messages
    yield
    fleet_http_connection.FleetHttpClient = client  # type: ignore[misc]  # put back what Flower had
    start_client_internal.time = clock
    http_retry.MAX_RETRY_DELAY = delay
    start_client_internal._pull_and_store_message = pull
    start_client_internal._push_messages = push


def test_flower_is_of_the_tested_line() -> None:
    assert flwr.__version__.startswith("1.41.")


def test_every_name_exists() -> None:
    assert [name for name in flower.__all__ if not hasattr(flower, name)] == []


def test_the_supernode_makes_its_client_through_the_name_we_replace() -> None:
    source = inspect.getsource(fleet_http_connection.http_request_response)
    assert "FleetHttpClient.from_server_address(" in source
    assert "retry_invoker.invoke(\n                client.ActivateNode," in source


def test_the_supernode_waits_through_the_name_we_replace() -> None:
    loop = inspect.getsource(start_client_internal.start_client_internal)
    push = inspect.getsource(start_client_internal._push_messages)
    assert "time.sleep(3)" in loop
    assert "time.sleep(0.5)" in push
    waits: list[float] = []
    flower.use_sleep(waits.append)
    start_client_internal.time.sleep(3)
    assert waits == [3]


@pytest.mark.parametrize(
    ("error", "told"),
    [(None, 0), (flower.ObjectPushError("ab", 1, "s"), 1), (RunNotRunningException(), 0)],
)
def test_a_reply_that_could_not_be_handed_over_is_told_of(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | None, told: int
) -> None:
    loop = inspect.getsource(start_client_internal.start_client_internal)
    assert "send=send,\n                push_object=push_object," in loop

    def push(
        *,
        send: Callable[..., None],
        push_object: Callable[..., None],
        state: int,
        object_store: types.SimpleNamespace,
    ) -> None:
        assert (state, object_store.get("ab")) == (5, None)
        send("message")
        with contextlib.suppress(Exception, RunNotRunningException):  # Flower logs it and goes on
            push_object("part")

    def push_object(_part: str) -> None:
        if error is not None:
            raise error

    failures: list[str] = []
    monkeypatch.setattr(start_client_internal, "_push_messages", push)
    flower.watch_pushes(lambda: failures.append("told"), 15.0)
    start_client_internal._push_messages(
        state=5,  # type: ignore[arg-type]  # the stand-in's
        object_store=InMemoryObjectStore(),
        send=print,  # type: ignore[arg-type]  # the stand-in's
        push_object=push_object,  # type: ignore[arg-type]  # the stand-in's
    )
    assert len(failures) == told


@pytest.mark.usefixtures("flower_task")
@pytest.mark.parametrize("brings_all", [True, False])
def test_a_part_that_the_tasks_process_never_brings_is_not_waited_for_without_end(
    brings_all: bool,
) -> None:
    """By Flower's own code: a reply is announced to the SuperNode, and its last part may lack."""
    source = inspect.getsource(start_client_internal._push_messages)
    assert set(re.findall(r"object_store\.(\w+)", source)) == {"get", "get_object_tree", "delete"}
    store, failures, sent = InMemoryObjectStore(), list[str](), list[str]()
    state, reply = InMemoryNodeState(store), Message(message().content, reply_to=message())
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        parts = get_all_nested_objects(reply)
        store.preregister(1, get_object_tree(reply))
    for object_id in list(parts)[: None if brings_all else -1]:
        store.put(object_id, parts[object_id].deflate())
    state.store_message(reply)
    flower.use_sleep(lambda _: time.sleep(0.01))
    flower.watch_pushes(lambda: failures.append("told"), 0.2)

    def push_object(_run: int, _session: str, object_id: str, _content: bytes) -> None:
        sent.append(object_id)

    def send(*_: Any) -> tuple[set[str], str]:
        return set(parts), "session"

    start_client_internal._push_messages(
        state=state, object_store=store, send=send, push_object=push_object
    )
    assert len(failures) == int(not brings_all)
    assert (set(sent) == set(parts)) is brings_all


def test_the_supernode_pulls_by_keywords_through_the_name_we_replace() -> None:
    loop = inspect.getsource(start_client_internal.start_client_internal)
    assert "run_id = _pull_and_store_message(\n                state=state," in loop
    flower.guard_pulls(lambda _pull: 5)
    assert start_client_internal._pull_and_store_message() == 5  # type: ignore[call-arg]  # the stand-in takes none


def test_every_call_of_the_client_goes_through_the_method_we_watch() -> None:
    for name in ("ActivateNode", "PullMessages", "PushObject", "SendNodeHeartbeat"):
        source = inspect.getsource(getattr(flower.FleetHttpClient, name))
        assert "return self._unary_unary(" in source


def test_the_retry_delay_is_read_where_we_set_it() -> None:
    flower.shorten_retry_waits(4)
    invoker = http_retry.make_simple_http_retry_invoker()
    waits = invoker.wait_gen_factory()
    assert max(next(waits) for _ in range(20)) <= 4


def test_the_flags_of_flower_supernode_exist() -> None:
    cli = importlib.import_module("flwr.supernode.cli.flower_supernode")
    options = {
        flag
        for action in cli._parse_args_run_supernode()._actions
        for flag in action.option_strings
    }
    ours = "superlink root-certificates auth-supernode-private-key isolation node-config host port"
    assert {f"--{name}" for name in ours.split()} <= options
    assert {"--superexec-auth-secret-file", "--trusted-entities", "--insecure"} <= options


def test_object_waits_are_keyword_defaults_that_can_be_shortened() -> None:
    from flwr.supercore.inflatable import inflatable_utils

    flower.shorten_object_waits(0.01, 0.02)
    for pull in (
        inflatable_utils.pull_objects,
        inflatable_utils.pull_and_inflate_object_from_tree,
    ):
        parameters = inspect.signature(pull).parameters
        assert parameters["initial_backoff"].default == 0.01
        assert parameters["backoff_cap"].default == 0.02
