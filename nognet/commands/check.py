"""`nognet check`: what `nognet prepare` would make of a hospital's studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nognet.commands.prepare import findings_table, one_line, progress_to_stderr
from nognet.console import emit


def check(
    site: Annotated[Path, typer.Option(help="The hospital's site.yaml.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    strict: Annotated[bool, typer.Option(help="Warnings fail too.")] = False,
) -> None:
    """Judge every pair as `nognet prepare` does: ok, warning or refused, and what to do.

    Ends with exit code 4 where a pair is refused (with --strict: or warned of).
    """
    from nognet.config import load_site
    from nognet.data.pairs.patient import outcome_as_json
    from nognet.data.site.prepare import examine_site
    from nognet.errors import SiteDataError

    config = load_site(site)
    with progress_to_stderr(f"check {config.name}") as progress:
        examination = examine_site(config, progress=progress)
    if as_json:
        pairs = [outcome_as_json(outcome) for outcome in examination.outcomes]
        emit(json.dumps({"site": config.name, "pairs": pairs}, indent=2, allow_nan=False))
    else:
        emit(f"{config.name}: {one_line(examination)}")
        for outcome in examination.outcomes:
            codes = ", ".join(dict.fromkeys(f.code for f in outcome.findings)) or "-"
            rows = f"rows {outcome.lines[0]} and {outcome.lines[1]}"
            emit(f"  {outcome.status:8} {rows:20} {codes}")
        for line in findings_table(examination.outcomes):
            emit(line)
    failing = ("refused", "warning") if strict else ("refused",)
    bad = sum(outcome.status in failing for outcome in examination.outcomes)
    if bad or not examination.outcomes:
        what = "refused or warned of" if strict else "refused"
        found = f"{bad} of {len(examination.outcomes)} pairs are {what}"
        raise SiteDataError(f"{config.name}: {found}", code="check")
