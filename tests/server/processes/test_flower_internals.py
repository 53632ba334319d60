"""Every undocumented name of Flower that the coordinator's processes lean on exists."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import secrets

import flwr
import pytest
from nognet_server.processes import flower_internals as flower

from nognet.pki.clock import REFUSED_AHEAD_S, REFUSED_BEHIND_S


def test_flower_is_of_the_tested_line() -> None:
    assert flwr.__version__.startswith("1.41.")


def test_every_name_exists() -> None:
    assert [name for name in flower.__all__ if not hasattr(flower, name)] == []


def test_a_rehearsal_refuses_a_clock_where_flower_does() -> None:
    assert REFUSED_AHEAD_S == flower.SYSTEM_TIME_TOLERANCE
    assert REFUSED_BEHIND_S == flower.TIMESTAMP_TOLERANCE + flower.SYSTEM_TIME_TOLERANCE


def test_every_public_route_is_one_of_superlinks() -> None:
    from flwr.superlink.main import create_app

    app = create_app()
    schema = app.openapi()["paths"]
    served = {(method.upper(), path) for path, methods in schema.items() for method in methods}
    assert served >= flower.PUBLIC_ROUTES
    fleet = {route for route in served if route[1].startswith("/v1/fleet/")}
    withheld = {path for _, path in fleet - flower.PUBLIC_ROUTES}
    assert withheld == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}


def test_superlinks_configuration_has_the_fields_we_set() -> None:
    fields = {field.name for field in dataclasses.fields(flower.SuperLinkLifespanConfig)}
    assert {"authn_plugin", "host", "port", "ssl_certfile", "ssl_keyfile"} <= fields


def test_the_flags_of_flower_superlink_exist() -> None:
    cli = importlib.import_module("flwr.superlink.cli.flower_superlink")
    options = {flag for a in cli._parse_args_run_superlink()._actions for flag in a.option_strings}
    ours = "host port ssl-ca-certfile ssl-certfile ssl-keyfile enable-supernode-auth database"
    assert {f"--{name}" for name in ours.split()} <= options
    assert {"--isolation", "--superexec-auth-secret-file"} <= options


def test_the_serverapp_is_run_with_the_arguments_we_give() -> None:
    parameters = set(inspect.signature(flower.run_serverapp).parameters)
    ours = "runtime_api_address log_queue token insecure certificates runtime_dependency_install"
    assert set(ours.split()) <= parameters


def test_object_waits_are_keyword_defaults_that_can_be_shortened() -> None:
    from flwr.supercore.inflatable import inflatable_utils

    flower.shorten_object_waits(0.01, 0.02)
    parameters = inspect.signature(inflatable_utils.pull_objects).parameters
    assert parameters["initial_backoff"].default == 0.01
    assert parameters["backoff_cap"].default == 0.02


def test_the_serverapp_pulls_replies_through_the_method_we_replace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flwr.superlink.runtime import run_serverapp

    assert "grid = HttpGrid(" in inspect.getsource(run_serverapp)
    pull = inspect.getsource(flower.HttpGrid.pull_messages)
    assert "self._runtime_client.PullMessages(" in pull
    assert "self._runtime_client.ConfirmMessageReceived(" in pull
    assert "max_time" not in pull  # it waits as long as pull_objects does by default
    monkeypatch.setattr(flower.HttpGrid, "pull_messages", flower.HttpGrid.pull_messages)
    flower.use_pull(lambda grid, asked: [grid.node, *asked])  # type: ignore[list-item]  # told apart
    grid = flower.HttpGrid("127.0.0.1:1", insecure=True, token=secrets.token_hex(4))
    assert list(grid.pull_messages(["a"])) == [grid.node, "a"]
