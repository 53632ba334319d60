"""Flower's SuperLink behind two listeners on one application.

Flower serves its Control, Runtime and Fleet APIs on one port and authenticates sites alone: whoever
reaches that port with the CA certificate could register a node, start a run with code of their own
or take the ServerApp's token. Here the public listener (`listener`) answers registered sites on a
closed list of routes, and /health; the rest answers on loopback, to whoever holds the token.

Run by the supervisor as ``python -m nognet_server.processes.superlink --parent PID ...``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from nognet.console import LogFormat, redirect_to_json
from nognet.supervision.children import parse_parent
from nognet.supervision.parent import die_with_parent
from nognet_server.processes import flower_internals as flower
from nognet_server.processes.admission import Admission
from nognet_server.processes.bundle_signature import read_signature
from nognet_server.processes.connections import make_room, public_connections
from nognet_server.processes.listener import PublicListener


class ControlToken(flower.ControlAuthnPlugin):
    """Admit to the Control API who holds the supervisor's token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_login_details(self) -> None:
        """There is no login: the supervisor reads the token from its state folder."""
        return

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, flower.AccountInfo | None]:
        """Compare the bearer token in constant time."""
        given = dict(metadata).get(flower.ACCESS_TOKEN_KEY, "")
        text = given.decode("latin-1") if isinstance(given, bytes) else given
        if not hmac.compare_digest(text.encode(), self.token.encode()):
            return False, None
        account = flower.AccountInfo(
            flwr_aid=flower.NOOP_FLWR_AID, account_name=flower.NOOP_ACCOUNT_NAME
        )
        return True, account

    def get_auth_tokens(self, device_code: str) -> None:  # noqa: ARG002  Flower's interface
        """No tokens are handed out."""
        return

    def refresh_tokens(
        self,
        metadata: Sequence[tuple[str, str | bytes]],  # noqa: ARG002  Flower's interface
    ) -> tuple[None, None]:
        """Tokens don't expire while SuperLink runs."""
        return None, None


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to us: there are two of them in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def application(token: str) -> tuple[Any, flower.SuperLinkLifespanConfig]:
    """Make Flower's application from the command line in `sys.argv`, with our control token."""
    config = flower.parse_superlink_config()
    config.authn_plugin = ControlToken(token)
    return flower.create_app(config, flower.SuperLinkLifespan), config


async def serve(public: uvicorn.Config, private: uvicorn.Config) -> None:
    """Serve both listeners until SIGTERM or SIGINT; the private one owns the lifespan."""
    servers = (_Server(private), _Server(public))

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    first = asyncio.create_task(servers[0].serve())
    while not servers[0].started and not first.done():
        await asyncio.sleep(0.02)
    if first.done():
        await first
        return
    await asyncio.gather(first, servers[1].serve())


def main() -> None:
    """Run both listeners; the flags after ``--`` are flower-superlink's own."""
    parent, arguments = parse_parent(sys.argv[1:])
    die_with_parent(parent)
    split = arguments.index("--")
    options = _parsed(arguments[:split])
    sys.argv = ["flower-superlink", *arguments[split + 1 :]]
    if options.bundle_signature is not None:
        flower.attach_verifications(*read_signature(Path(options.bundle_signature)))
    token = Path(options.control_token).read_text(encoding="ascii")
    if LogFormat(options.log_format) is LogFormat.json:
        redirect_to_json(flower.LOGGERS, {"run": options.run})
    app, config = application(token)
    make_room()
    asyncio.run(serve(_public(app, options), _private(app, config, options)))


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--listen", "--control-token", "--used-signatures", "--log-format", "--run"):
        parser.add_argument(name, required=True)
    for name in ("--certificate", "--key", "--bundle-signature"):
        parser.add_argument(name)
    return parser.parse_args(arguments)


def _private(
    app: Any,  # noqa: ANN401  Flower's application
    config: flower.SuperLinkLifespanConfig,
    options: argparse.Namespace,
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        ssl_keyfile=config.ssl_keyfile,
        ssl_certfile=config.ssl_certfile,
        **_common(options),
    )


def _public(app: Any, options: argparse.Namespace) -> uvicorn.Config:  # noqa: ANN401  Flower's
    def is_registered(public_key: bytes) -> bool:
        state = app.state.linkstate_factory.state()
        return state.get_node_id_by_public_key(public_key) is not None

    host, _, port = options.listen.rpartition(":")
    return uvicorn.Config(
        PublicListener(app, Admission(is_registered, used_file=Path(options.used_signatures))),
        host=host,
        port=int(port),
        lifespan="off",
        ws="none",
        http=public_connections(),  # type: ignore[arg-type]  # uvicorn calls it as it calls a class
        ssl_keyfile=options.key,
        ssl_certfile=options.certificate,
        **_common(options),
    )


def _common(options: argparse.Namespace) -> dict[str, Any]:
    as_json = LogFormat(options.log_format) is LogFormat.json
    return {
        "log_config": None if as_json else flower.get_uvicorn_log_config(20),
        "workers": 1,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 2,
    }


if __name__ == "__main__":
    main()
