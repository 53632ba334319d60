"""`nognet audit`: what has left this site, and whether the record of it is as it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.audit.log import AuditLog

app = typer.Typer(
    no_args_is_help=True, help="The record of all that left a site: show it, check it."
)
SiteOption = Annotated[Path, typer.Option(help="The site's site.yaml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(
    site: SiteOption,
    anchor: Annotated[
        str | None,
        typer.Option(help="A hash that `nognet audit head` printed and that was kept elsewhere."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find lines that were edited, deleted or moved, and receipts that were changed.

    That the last lines are gone is found by the head kept beside the log. That both were replaced
    is found only with --anchor: a chain alone can't know what never was part of it.
    """
    from dataclasses import asdict

    from nognet.audit.verify import verify as verify_log
    from nognet.errors import EgressError

    log = _log_of(site)
    found = verify_log(log, anchor=anchor)
    if as_json:
        emit(json.dumps({**asdict(found), "path": str(log.path), "anchored": bool(anchor)}))
    else:
        for fault in found.faults:
            emit(f"line {fault.line}: {fault.what}" if fault.line else fault.what)
        emit(f"{log.path}: {found.entries} lines, head {found.head}")
        if found.torn_bytes:
            emit(
                f"  and {found.torn_bytes} bytes of half a line, as a crash leaves them; the next "
                "message cuts them off and says so"
            )
        if anchor is None:
            say("without --anchor, a log that was replaced from its first line on looks whole")
    if found.faults:
        raise EgressError(
            f"{log.path}: {len(found.faults)} faults; the record of what left this site was "
            "changed. Keep a copy of the folder and tell your data-protection officer",
            code="audit-damaged",
        )


@app.command()
def head(site: SiteOption) -> None:
    """Print the hash of the last line, to be kept where this machine can't reach it."""
    from nognet.audit.entry import GENESIS

    kept = _log_of(site).head()
    emit(GENESIS if kept is None else kept.hash)


@app.command()
def show(site: SiteOption, as_json: JsonOption = False) -> None:
    """List everything that has left this site, one message a line."""
    from nognet.audit.verify import read_entries

    log = _log_of(site)
    if not log.path.exists():
        say(f"{log.path}: nothing has left this site yet")
        return
    for number, entry in read_entries(log.path):
        if entry is None:
            emit("null" if as_json else f"line {number}: not readable; see `nognet audit verify`")
        elif as_json:
            emit(json.dumps({"index": entry.index, "time": entry.time, **entry.event}))
        else:
            emit(f"{entry.time[:19]}Z  {event_words(entry.event)}")


def event_words(event: Mapping[str, Any]) -> str:
    """Say in a line what left.

    >>> event_words({"kind": "train-error", "round": 2, "code": "TrainingError:no-pairs"})
    'round 2, train-error: only the code TrainingError:no-pairs'
    """
    where = f"round {event['round']}, " if "round" in event else ""
    run = f", run {str(event['run'])[:8]}" if "run" in event else ""
    kind = event.get("kind", "unknown")
    if "torn_bytes" in event:
        return f"a crash had left half a line here ({event['torn_bytes']} bytes); cut off"
    if kind == "recovered":
        return f"a crash had left {event.get('receipt')} without its line; nothing left with it"
    if "study_sha256" in event:
        return f"{kind}: study {event.get('study')}, {event.get('rounds')} rounds{run}"
    if "code" in event:
        return f"{where}{kind}: only the code {event['code']}{run}"
    parts = [f"{event.get('bytes', 0)} bytes"]
    if "update_norm" in event:
        parts.append(f"an update of length {event['update_norm']:.4g}")
    counts = event.get("counts", {})
    parts += [f"{name} {value}" for name, value in counts.items() if value]
    if "epsilon" in event:
        parts.append(f"epsilon {event['epsilon']:.3f} spent (delta {event.get('delta', 0):g})")
    if "epsilon_charged" in event:
        parts.append(f"{event['epsilon_charged']:.3f} in all studies, which stays here")
    if event.get("withheld"):
        parts.append(f"{len(event['withheld'])} figures withheld")
    return f"{where}{kind}: {', '.join(parts)}{run}"


def _log_of(site: Path) -> AuditLog:
    from nognet.audit.log import AuditLog, egress_folder
    from nognet.config import load_site

    return AuditLog(egress_folder(load_site(site).state))
