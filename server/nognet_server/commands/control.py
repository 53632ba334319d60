"""`nognet-server status | stop | logs | health | sign`: what is done beside a running server."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nognet.console import emit, say

StudyOption = Annotated[
    Path | None, typer.Option(help="The server's study; by default ./study.yaml.")
]
RunOption = Annotated[Path | None, typer.Option(help="Or the folder of a run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Log(StrEnum):
    """Which log of a run."""

    server = "server"
    serverapp = "serverapp"
    superlink = "superlink"


def status(study: StudyOption = None, run: RunOption = None, as_json: JsonOption = False) -> None:
    """Say what the run does: state, round, sites (online, offline, quarantined), exit code.

    Exit code 0 whatever the state is.
    """
    from nognet_server.processes.observe import find_place, observe

    seen = observe(_find(find_place, study, run))
    if as_json:
        emit(json.dumps(seen, indent=2))
        return
    emit(f"{seen['state']}: {seen['text']}")
    for key in ("run_folder", "pid", "started", "changed", "rounds_done", "exit_code"):
        if seen.get(key) is not None:
            emit(f"{key.replace('_', ' ')}: {seen[key]}")
    for site, what in seen["sites"].items():
        emit(f"site {site}: {what}")


def stop(
    study: StudyOption = None,
    run: RunOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for its end.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """End the run as Ctrl-C does: sites stop training at once, --resume goes on with it.

    Exit code 1 if none runs, if it is not at the run that --run names, or if it does not end in
    time.
    """
    from dataclasses import asdict

    from nognet_server.processes import observe

    ended = observe.stop(_find(observe.find_place, study, run), timeout)
    if as_json:
        emit(json.dumps(asdict(ended) if ended else None, indent=2))
    elif ended is not None:
        emit(f"{ended.state}: {ended.text}")


def logs(
    study: StudyOption = None,
    run: RunOption = None,
    log: Annotated[Log, typer.Option(help="Whose lines.")] = Log.server,
    lines: Annotated[int, typer.Option(min=1, help="How many, from the end.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Stay for what comes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the log of a run: what the server said, or one of its children."""
    from nognet_server.processes.observe import find_place, log_lines, readable

    place = _find(find_place, study, run)
    for line in log_lines(place, log.value, lines, follow=follow):
        if not as_json:
            emit(readable(line))
        elif line.startswith("{"):
            emit(line)
        else:
            emit(json.dumps({"logger": log.value, "message": line}))


def health(study: StudyOption = None, run: RunOption = None, as_json: JsonOption = False) -> None:
    """Exit with 0 if the server runs and SuperLink answers, with 1 if not; for health checks.

    Where --run names a run, a server at another one doesn't count.
    """
    from nognet_server.processes.observe import find_place, is_healthy

    well = is_healthy(_find(find_place, study, run))
    if as_json:
        emit(json.dumps({"healthy": well}))
    else:
        emit("healthy" if well else "not healthy")
    raise typer.Exit(0 if well else 1)


def sign(
    key: Annotated[Path, typer.Option(help="Ed25519 private key, in OpenSSH's format.")],
    out: Annotated[Path, typer.Option(help="The signature.")] = Path("bundle-signature.json"),
) -> None:
    """Sign this release's bundle, for sites that name trusted keys (trusted_entities).

    Prints the line for the sites' file. The key need not be on the server.
    """
    from nognet_server.processes.bundle_signature import sign_bundle

    emit(sign_bundle(key, out).to_yaml())
    say(f"{out}: name it as server.bundle_signature in study.yaml.")
    say("Each site puts the line printed into the file that its server.trusted_entities names.")


def _find(find: Any, study: Path | None, run: Path | None) -> Any:  # noqa: ANN401  imported late
    import os

    from nognet.supervision.children import past_the_proxy

    os.environ.update(past_the_proxy(os.environ))
    return find(study, run)
