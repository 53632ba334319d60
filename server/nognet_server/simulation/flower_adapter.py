"""Everything of Flower that the simulation uses and Flower doesn't document, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event
from typing import cast

from flwr.app import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import (
    HEARTBEAT_INTERVAL_INF,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
)
from flwr.compat.client.run_info_store import DeprecatedRunInfoStore
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.fleet.vce.backend.backend import Backend
from flwr.server.superlink.fleet.vce.metrics import VceMetrics
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState, RunRecord
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

__all__ = ["Backend", "InMemoryGrid", "World", "make_world", "serve_nodes"]

UNDOCUMENTED = (
    "flwr.common.constant:HEARTBEAT_INTERVAL_INF",
    "flwr.common.constant:NOOP_ACCOUNT_NAME",
    "flwr.common.constant:NOOP_FLWR_AID",
    "flwr.common.constant:SUPERLINK_NODE_ID",
    "flwr.compat.client.run_info_store:DeprecatedRunInfoStore.register_context",
    "flwr.proto.task_pb2:Task",
    "flwr.server.superlink.fleet.vce.backend.backend:Backend.process_message",
    "flwr.server.superlink.fleet.vce.metrics:VceMetrics",
    "flwr.server.superlink.fleet.vce.vce_api:run_api",
    "flwr.server.superlink.linkstate:LinkStateFactory.state",
    "flwr.server.superlink.linkstate.in_memory_linkstate:InMemoryLinkState.create_node",
    "flwr.server.superlink.linkstate.in_memory_linkstate:RunRecord",
    "flwr.supercore.constant:FLWR_IN_MEMORY_DB_NAME",
    "flwr.supercore.constant:NOOP_FEDERATION_ID",
    "flwr.supercore.object_store:ObjectStoreFactory",
    "flwr.supercore.run:Run.create_empty",
    "flwr.supercore.task_identity:TaskIdentity",
    "flwr.superlink.federation:NoOpFederationManager",
    "flwr.superlink.grid.inmemory_grid:InMemoryGrid.set_run",
)
_RUN_ID = 1
_TASK_ID = 1


@dataclass(frozen=True)
class World:
    """Flower's in-memory SuperLink with one registered node a site."""

    grid: InMemoryGrid
    state_factory: LinkStateFactory
    node_of: Mapping[str, int]
    stores: Mapping[int, DeprecatedRunInfoStore]


def make_world(node_configs: Mapping[str, UserConfig], run_config: UserConfig) -> World:
    """Register one node a site, under the site's name, and one run."""
    run = Run.create_empty(run_id=_RUN_ID)
    run.primary_task_id, run.federation_id = _TASK_ID, NOOP_FEDERATION_ID
    TaskIdentity.task_id, TaskIdentity.run_id = _TASK_ID, _RUN_ID
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    factory = LinkStateFactory(
        FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory()
    )
    state = cast("InMemoryLinkState", factory.state())
    state.run_ids[_RUN_ID] = RunRecord(run=run)
    state.task_store[_TASK_ID] = Task(task_id=_TASK_ID, run_id=_RUN_ID)
    node_of = {name: _register(state, name) for name in sorted(node_configs)}
    stores = {
        node_id: _store(node_id, node_configs[name], run, run_config)
        for name, node_id in node_of.items()
    }
    grid = InMemoryGrid(state_factory=factory, pull_interval=0.02)
    grid.set_run(run)
    return World(grid, factory, node_of, stores)


def serve_nodes(
    world: World, client_app: ClientApp, make_backend: Callable[[], Backend], stop: Event
) -> None:
    """Run Flower's simulation loop until `stop` is set."""
    numbers = {node_id: number for number, node_id in enumerate(world.node_of.values())}
    vce_api.run_api(
        app_fn=lambda: client_app,
        backend_fn=make_backend,
        nodes_mapping=numbers,
        state_factory=world.state_factory,
        node_info_stores=dict(world.stores),
        f_stop=stop,
        metrics=VceMetrics(),
    )


def _register(state: InMemoryLinkState, name: str) -> int:
    node_id = state.create_node(
        NOOP_FLWR_AID,
        NOOP_ACCOUNT_NAME,
        name.encode(),  # stands for the site's public key; names are unique
        heartbeat_interval=HEARTBEAT_INTERVAL_INF,
        name=name,
    )
    state.acknowledge_node_heartbeat(node_id=node_id, heartbeat_interval=HEARTBEAT_INTERVAL_INF)
    return node_id


def _store(
    node_id: int, node_config: UserConfig, run: Run, run_config: UserConfig
) -> DeprecatedRunInfoStore:
    store = DeprecatedRunInfoStore(node_id=node_id, node_config=dict(node_config))
    store.register_context(run_id=run.run_id, run=run, app_dir=None)
    store.run_infos[run.run_id].context.run_config = dict(run_config)
    store.run_infos[run.run_id].initial_run_config = dict(run_config)
    return store
