"""Every undocumented name of Flower that the site leans on exists and means the same."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator

import flwr
import pytest
from flwr.supercore.retry import http_retry
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import fleet_http_connection, start_client_internal
from nognet_client.processes import flower_internals as flower


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

    def push(*, send: Callable[..., None], push_object: Callable[..., None], state: int) -> None:
        assert state == 5
        send("message")
        with contextlib.suppress(Exception, RunNotRunningException):  # Flower logs it and goes on
            push_object("part")

    def push_object(_part: str) -> None:
        if error is not None:
            raise error

    failures: list[str] = []
    monkeypatch.setattr(start_client_internal, "_push_messages", push)
    flower.watch_pushes(lambda: failures.append("told"))
    start_client_internal._push_messages(state=5, send=print, push_object=push_object)  # type: ignore[call-arg, arg-type]  # the stand-in's
    assert len(failures) == told


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
