"""The bundle (FAB) that names what runs where, and carries no code.

Stock Flower sends the coordinator's code to the hospitals. Ours holds a `pyproject.toml` alone:
both apps are parts of the installed release, and a site refuses a bundle that carries more.
"""

from __future__ import annotations

import hashlib
import json

import nognet
from nognet_server.processes import flower_internals as flower
from nognet_server.runs.flower_config import CLIENT_APP, DEFAULTS, SERVER_APP

_TEMPLATE = """\
[project]
name = "nognet"
version = {version}
description = "Names the apps of the installed nognet; carries no code."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "nognet"

[tool.flwr.app.components]
serverapp = {server_app}
clientapp = {client_app}

[tool.flwr.app.config]
{config}
"""


def thin_bundle(version: str = nognet.__version__) -> flower.Fab:
    """Build the bundle of this release."""
    # strings, numbers and booleans of JSON are also TOML
    config = "\n".join(f"{key} = {json.dumps(value)}" for key, value in DEFAULTS.items())
    pyproject = _TEMPLATE.format(
        version=json.dumps(version),
        server_app=json.dumps(SERVER_APP),
        client_app=json.dumps(CLIENT_APP),
        config=config,
    )
    content, _ = flower.build_fab_from_files({"pyproject.toml": pyproject.encode()})
    return flower.Fab(hashlib.sha256(content).hexdigest(), content, {})
