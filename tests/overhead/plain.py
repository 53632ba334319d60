"""A plain Flower app over TLS, as its documentation builds it: send arrays, get them back.

Its sites do no work, so that a round's seconds are all overhead. Stock SuperLink and SuperNodes, a
new Python for each message, arrays as given.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nognet_server.processes import flower_internals as flower

from nognet.pki.authority import CoordinatorFiles
from tests.builders.deployment import free_ports

_PYPROJECT = """\
[project]
name = "plain"
version = "1.0.0"
description = "Sends arrays and gets them back."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "nognet"

[tool.flwr.app.components]
serverapp = "plain.server:app"
clientapp = "plain.site:app"

[tool.flwr.app.config]
shapes = "[]"
rounds = 1
sites = 1
out = ""
"""
_SITE = """\
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    content = RecordDict(
        {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
    )
    return Message(content, reply_to=message)
"""
_SERVER = """\
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    def __init__(self, **named):
        super().__init__(**named)
        self.seconds, self.started = [], 0.0

    def configure_train(self, *arguments):
        messages = super().configure_train(*arguments)
        self.started = time.monotonic()
        return messages

    def aggregate_train(self, number, replies):
        replies = list(replies)
        self.seconds.append(time.monotonic() - self.started)
        return super().aggregate_train(number, replies)


@app.main()
def main(grid, context):
    config = context.run_config
    shapes = json.loads(config["shapes"])
    arrays = ArrayRecord(
        {str(n): Array(np.zeros(shape, np.float32)) for n, shape in enumerate(shapes)}
    )
    strategy = Timed(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=config["sites"],
        min_available_nodes=config["sites"],
    )
    strategy.start(grid, initial_arrays=arrays, num_rounds=config["rounds"])
    Path(config["out"]).write_text(json.dumps(strategy.seconds))
"""


def plain_rounds(
    folder: Path,
    files: CoordinatorFiles,
    shapes: Sequence[Sequence[int]],
    *,
    sites: int,
    rounds: int,
    within_s: float = 600.0,
) -> list[float]:
    """Run the app; give the seconds of each training round, from sending to the last reply.

    Args:
        folder: To work in.
        files: Certificates of 127.0.0.1.
        shapes: Of the arrays.
        sites: SuperNodes.
        rounds: To train.
        within_s: Limit.

    Raises:
        TimeoutError: it did not end.
    """
    folder.mkdir(parents=True)
    out = folder / "seconds.json"
    port, *site_ports = free_ports(1 + sites)
    with _processes(folder, files, port, site_ports):
        _submit(
            f"127.0.0.1:{port}",
            files,
            {"shapes": json.dumps(shapes), "rounds": rounds, "sites": sites, "out": str(out)},
        )
        deadline = time.monotonic() + within_s
        while not out.exists() or not out.read_text():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    p.read_text(errors="replace")[-2000:] for p in folder.glob("*.log")
                )
                raise TimeoutError(f"the plain app did not end:\n{logs}")
            time.sleep(0.2)
    return [float(seconds) for seconds in json.loads(out.read_text())]


@contextlib.contextmanager
def _processes(
    folder: Path, files: CoordinatorFiles, port: int, site_ports: Sequence[int]
) -> Iterator[None]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    tls = ("--ssl-ca-certfile", files.ca, "--ssl-certfile", files.certificate)
    superlink = (
        *("flower-superlink", "--port", port, *tls, "--ssl-keyfile", files.key),
        "--disable-runtime-dependency-installation",
    )
    supernodes = [
        (
            *("flower-supernode", "--superlink", f"127.0.0.1:{port}"),
            *("--root-certificates", files.ca, "--port", site_port),
            # the SuperNode's own API on loopback; its fleet connection is over TLS
            *("--node-config", f"site={number}"),
        )
        for number, site_port in enumerate(site_ports)
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, command in enumerate((superlink, *supernodes)):
            with (folder / f"{number}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [str(word) for word in command], stdout=log, stderr=log, env=environment
                    )
                )
            if number == 0:
                _wait_for(port)
        yield
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _wait_for(port: int, within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def _submit(address: str, files: CoordinatorFiles, config: dict[str, str | int]) -> None:
    bundle, _ = flower.build_fab_from_files(
        {
            "pyproject.toml": _PYPROJECT.encode(),
            "plain/__init__.py": b"",
            "plain/site.py": _SITE.encode(),
            "plain/server.py": _SERVER.encode(),
        }
    )
    client = flower.ControlHttpClient.from_server_address(
        address,
        insecure=False,
        root_certificates=files.ca.read_bytes(),
        interceptors=[flower.RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    fab = flower.Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
    client.StartRun(
        flower.StartRunRequest(
            fab=flower.fab_to_proto(fab), override_config=flower.user_config_to_proto(config)
        )
    )
    client.close()
