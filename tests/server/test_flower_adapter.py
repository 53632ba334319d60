from __future__ import annotations

import importlib
import inspect
import logging

import nognet_client.flower_adapter
import nognet_server.flower_adapter
import nognet_server.simulation.flower_adapter
import pytest
from flwr.server.superlink.fleet.vce import vce_api
from flwr.serverapp import strategy as flower_strategies

ADAPTERS = (
    nognet_client.flower_adapter,
    nognet_server.flower_adapter,
    nognet_server.simulation.flower_adapter,
)
NAMES = sorted({name for adapter in ADAPTERS for name in adapter.UNDOCUMENTED})


@pytest.mark.parametrize("name", NAMES)
def test_every_undocumented_name_still_exists(name: str) -> None:
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)


def test_flowers_simulation_loop_takes_the_arguments_we_give_it() -> None:
    assert list(inspect.signature(vce_api.run_api).parameters) == [
        "app_fn",
        "backend_fn",
        "nodes_mapping",
        "state_factory",
        "node_info_stores",
        "f_stop",
        "metrics",
    ]


def test_fedadam_still_keeps_its_arrays_under_the_names_we_save() -> None:
    adam = flower_strategies.FedAdam()
    assert (adam.m_t, adam.v_t) == (None, None)


def test_telemetry_and_chatter_are_off() -> None:
    from flwr.supercore import telemetry

    nognet_server.flower_adapter.quiet_flower()
    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"
    assert logging.getLogger("flwr").level == logging.WARNING
