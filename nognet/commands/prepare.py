"""`nognet prepare`: from a hospital's studies to the store of prepared pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.commands.lines import WIDTH, advice_lines, counted, harmless, text_width, wrapped
from nognet.commands.pair_table import one_line
from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.data.pairs.outcome import PairOutcome
    from nognet.data.site.examine import Examination
    from nognet.data.store import PreparedSite

REFUSED_SHOWN = 40
PAIRS_NAMED = 3


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
    """Read, register and cut every pair; store what is usable, list what is not and why.

    What didn't change is not read again; after Ctrl-C the next run goes on where this one was.

    Ends with exit code 4 where no pair can be used; one that is refused doesn't fail it.
    """
    from nognet.config import load_site
    from nognet.data.site.prepare import prepare_site_with_report

    config = load_site(site)
    with progress_to_stderr(f"prepare {config.name}") as progress:
        prepared, examination = prepare_site_with_report(config, progress=progress, resplit=resplit)
    if as_json:
        emit(json.dumps(_as_json(config.name, prepared, examination), indent=2, allow_nan=False))
        return
    emit(f"{config.name}: {one_line(examination)}")
    for line in [
        *findings_table(examination.outcomes, width=text_width()),
        *_counts_table(prepared),
        *_prior_line(prepared),
    ]:
        emit(line)


def findings_table(outcomes: Sequence[PairOutcome], *, width: int = WIDTH) -> Iterator[str]:
    """List the findings: warnings summed by code, refusals by what was found, then what to do."""
    return harmless(_findings(outcomes, width))


def _findings(outcomes: Sequence[PairOutcome], width: int) -> Iterator[str]:
    from nognet.data.pairs.gate import meaning_of

    warned = _codes(outcomes, "warning")
    for code, count in sorted(warned.items()):
        yield from _row("warning", code, count, meaning_of(code), width)
    refused: dict[tuple[str, str], list[PairOutcome]] = {}
    for outcome in outcomes:
        for finding in outcome.findings:
            if outcome.status == finding.severity == "refused":
                refused.setdefault((finding.code, finding.message), []).append(outcome)
    for (code, message), pairs in list(refused.items())[:REFUSED_SHOWN]:
        rows = ", ".join(f"{o.lines[0]} and {o.lines[1]}" for o in pairs[:PAIRS_NAMED])
        more = " ..." * (len(pairs) > PAIRS_NAMED)
        yield from _row("refused", code, len(pairs), f"{message} (rows {rows}{more})", width)
    if len(refused) > REFUSED_SHOWN:
        yield f"  ... and {len(refused) - REFUSED_SHOWN} more refusals (see --json)"
    skipped = _codes(outcomes, "skipped")
    for code, count in sorted(skipped.items()):
        yield from _row("skipped", code, count, meaning_of(code), width)
    yield from advice_lines(warned + _codes(outcomes, "refused") + skipped, "pair", width=width)


def _codes(outcomes: Sequence[PairOutcome], status: str) -> Counter[str]:
    """Count the pairs of a status by each code that is of that severity."""
    return Counter(
        code
        for outcome in outcomes
        if outcome.status == status
        for code in {f.code for f in outcome.findings if f.severity == status}
    )


def _row(status: str, code: str, count: int, text: str, width: int) -> list[str]:
    head = f"  {status}  {code:18} {counted(count, 'pair')}  "
    return wrapped(f"{head}{text}", "", width=width, hanging=" " * len(head))


@contextmanager
def progress_to_stderr(
    title: str, *, what: str = "patients"
) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar on a terminal, a line now and then elsewhere; both on stderr.

    Ctrl-C is answered at once: work in hand may take a while to end.
    """
    with _ctrl_c_answered(title), _progress(title, what) as tell:
        yield tell


@contextmanager
def _ctrl_c_answered(title: str) -> Iterator[None]:
    """Say on Ctrl-C that it was heard, and what comes of it."""
    import os
    import signal
    import threading

    def answer(*_: object) -> None:
        # os.write: a handler may come in the midst of a write to stderr
        told = f"\n{title}: interrupted; ends when work in hand is done, what is done is kept\n"
        os.write(2, told.encode(errors="replace"))
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _progress(title: str, what: str) -> Iterator[Callable[[int, int, str], None]]:
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


def _prior_line(prepared: PreparedSite) -> Iterator[str]:
    """Say how many pairs carry a prior scan; nothing where none does."""
    count = _with_prior(prepared)
    if count:
        all_pairs = len(prepared.index.records)
        yield f"  {count} of {all_pairs} pairs carry the scan before their baseline"


def _with_prior(prepared: PreparedSite) -> int:
    return sum(record.prior_days_before is not None for record in prepared.index.records)


def _as_json(name: str, prepared: PreparedSite, examination: Examination) -> dict[str, Any]:
    from nognet.data.pairs.outcome import outcome_as_json

    return {
        "site": name,
        "store": str(prepared.folder),
        "fingerprint": prepared.fingerprint,
        "counts": prepared.counts(),
        "pairs_with_prior": _with_prior(prepared),
        "seconds": examination.seconds,
        "pairs": [outcome_as_json(outcome) for outcome in examination.outcomes],
    }
