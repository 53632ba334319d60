"""`nognet prepare`: from a hospital's studies to the store of prepared pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.commands.pair_table import one_line
from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.data.pairs.outcome import PairOutcome
    from nognet.data.site.examine import Examination
    from nognet.data.store import PreparedSite

REFUSED_SHOWN = 40


def prepare(
    site: Annotated[Path, typer.Option(help="The hospital's site.yaml.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    resplit: Annotated[
        bool,
        typer.Option(
            "--resplit", help="Let patients move between the splits where seed or split changed."
        ),
    ] = False,
) -> None:
    """Read, register and cut every pair; store what is usable, list what is not and why."""
    from nognet.config import load_site
    from nognet.data.site.prepare import prepare_site_with_report

    config = load_site(site)
    with progress_to_stderr(f"prepare {config.name}") as progress:
        prepared, examination = prepare_site_with_report(config, progress=progress, resplit=resplit)
    if as_json:
        emit(json.dumps(_as_json(config.name, prepared, examination), indent=2, allow_nan=False))
        return
    emit(f"{config.name}: {one_line(examination)}")
    for line in [*findings_table(examination.outcomes), *_counts_table(prepared)]:
        emit(line)


def findings_table(outcomes: Sequence[PairOutcome]) -> Iterator[str]:
    """List the findings: warnings summed by code, refusals pair by pair with what to do."""
    from nognet.data.pairs.gate import advice_for, meaning_of

    warned = Counter(
        code
        for outcome in outcomes
        if outcome.status == "warning"
        for code in {finding.code for finding in outcome.findings}
    )
    for code, count in sorted(warned.items()):
        advice = advice_for(code)
        yield f"  warning  {code:18} {count:4} pairs  {meaning_of(code)}" + (
            f"; {advice}" if advice else ""
        )
    refused = [outcome for outcome in outcomes if outcome.status == "refused"]
    for outcome in refused[:REFUSED_SHOWN]:
        for finding in outcome.findings:
            if finding.severity == "refused":
                rows = f"rows {outcome.lines[0]} and {outcome.lines[1]}"
                yield f"  refused  {finding.code:18} {rows}: {finding.message}"
    skipped = [outcome for outcome in outcomes if outcome.status == "skipped"]
    if skipped:
        codes = sorted({finding.code for outcome in skipped for finding in outcome.findings})
        yield f"  skipped  {', '.join(codes):18} {len(skipped):4} nodules (see `nognet check`)"
    if len(refused) > REFUSED_SHOWN:
        yield f"  ... and {len(refused) - REFUSED_SHOWN} more refused pairs (see --json)"


@contextmanager
def progress_to_stderr(
    title: str, *, what: str = "patients"
) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar on a terminal, a line now and then elsewhere; both on stderr."""
    import time

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        said = time.monotonic()

        def tell(done: int, total: int, words: str) -> None:
            nonlocal said
            if done in (0, total) or time.monotonic() - said > 10:
                said = time.monotonic()
                say(f"{title}: {done} of {total} {what}; {words}")

        yield tell
        return
    columns = (
        TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(what),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, words: bar.update(
            task, completed=done, total=total, description=words
        )


def _counts_table(prepared: PreparedSite) -> Iterator[str]:
    yield f"  {'split':12}{'patients':>9}{'pairs':>7}{'growing':>9}{'stable':>8}{'shrinking':>11}"
    for split, count in prepared.counts().items():
        strata = count["strata"]
        yield (
            f"  {split:12}{count['patients']:9}{count['pairs']:7}"
            f"{strata['growing']:9}{strata['stable']:8}{strata['shrinking']:11}"
        )


def _as_json(name: str, prepared: PreparedSite, examination: Examination) -> dict[str, Any]:
    from nognet.data.pairs.outcome import outcome_as_json

    return {
        "site": name,
        "store": str(prepared.folder),
        "fingerprint": prepared.fingerprint,
        "counts": prepared.counts(),
        "seconds": examination.seconds,
        "pairs": [outcome_as_json(outcome) for outcome in examination.outcomes],
    }
