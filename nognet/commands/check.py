"""`nognet check`: what `nognet prepare` would make of a hospital's studies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.commands.pair_table import (
    counts_of,
    distinct,
    one_line,
    pair_lines,
    series_json,
    to_do_lines,
)
from nognet.commands.prepare import progress_to_stderr
from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.config import SiteConfig
    from nognet.data.pairs.outcome import PairOutcome
    from nognet.data.site.examine import Examination
    from nognet.report.sheet import SheetTile


def check(
    site: Annotated[Path, typer.Option(help="The hospital's site.yaml.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    strict: Annotated[bool, typer.Option(help="Warnings fail too.")] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet of all pairs for a human look: .html or .png."),
    ] = None,
) -> None:
    """Judge every series, mask and pair as `nognet prepare` does: what was found, what to do.

    Ends with exit code 4 where a pair is refused (with --strict: or warned of).
    """
    from nognet.config import load_site
    from nognet.data.site.examine import examine_site

    if sheet is not None:
        _want_writable(sheet)
    config = load_site(site)
    with progress_to_stderr(f"check {config.name}") as progress:
        examination = examine_site(config, progress=progress, keep_cuts=sheet is not None)
    if as_json:
        emit(json.dumps(_as_json(config.name, examination), indent=2, allow_nan=False))
    else:
        for line in _as_text(config, examination):
            emit(line)
    if sheet is not None:
        _write_sheet(sheet, config, examination)
    _fail_if_bad(config.name, examination, strict=strict)


def _want_writable(sheet: Path) -> None:
    """Refuse a sheet that can't be written now, not after all pairs were registered."""
    from nognet.errors import SiteDataError
    from nognet.report.sheet import SUFFIXES

    if sheet.suffix.lower() not in SUFFIXES:
        raise SiteDataError(
            f"--sheet {sheet}: '{sheet.suffix}' is not known; give a name that ends with "
            f"{' or '.join(SUFFIXES)}",
            code="sheet-format",
        )
    if sheet.is_dir():
        raise SiteDataError(f"--sheet {sheet}: is a folder; give a file", code="sheet-write")


def _as_json(name: str, examination: Examination) -> dict[str, object]:
    from nognet.data.pairs.outcome import outcome_as_json

    return {
        "site": name,
        "series": series_json(examination),
        "pairs": [outcome_as_json(outcome) for outcome in examination.outcomes],
        "counts": counts_of(examination),
    }


def _as_text(config: SiteConfig, examination: Examination) -> Iterator[str]:
    from nognet.commands.inspect_table import as_table
    from nognet.commands.lines import text_width

    width = text_width()
    rows = [found.row for found in distinct(examination.series)]
    yield from as_table(rows, config.studies.parent, width=width, advice=False)
    parts = (pair_lines(examination.outcomes, width=width), to_do_lines(examination, width=width))
    for part in parts:
        lines = list(part)
        if lines:
            yield ""
            yield from lines
    yield ""
    yield f"{config.name}: {one_line(examination)}"


def _write_sheet(path: Path, config: SiteConfig, examination: Examination) -> None:
    from nognet.report.sheet import write_sheet

    for written in write_sheet(path, f"{config.name}: pairs", _tiles(config, examination)):
        say(f"contact sheet written to {written}; it shows patients' images, keep it at the site")


def _tiles(config: SiteConfig, examination: Examination) -> Iterator[SheetTile]:
    """Give the pairs one by one, those that were refused after cutting among them."""
    from nognet.data.stored_pair import read_pair
    from nognet.report.sheet import SheetTile

    for outcome in examination.outcomes:
        pair = outcome.cut
        if pair is None and outcome.record is not None:
            pair = read_pair(config.cache, outcome.record)
        if pair is not None:
            yield SheetTile(
                f"{outcome.patient}, {outcome.nodule}, rows {outcome.lines[0]} and "
                f"{outcome.lines[1]}",
                outcome.status,
                _caption(outcome),
                pair.baseline,
                pair.follow_up,
                pair.baseline_mask,
                pair.follow_up_mask,
            )


def _caption(outcome: PairOutcome) -> str:
    volumes = outcome.volumes_mm3 or (0.0, 0.0)
    figures = [f"{outcome.interval_days} days", f"{volumes[0]:.0f} to {volumes[1]:.0f} mm3"]
    if "ncc" in outcome.quality:
        figures.append(f"NCC {outcome.quality['ncc']:.2f}")
    if "nodule_displacement_mm" in outcome.quality:
        figures.append(f"centres {outcome.quality['nodule_displacement_mm']:.1f} mm apart")
    findings = dict.fromkeys(f"{f.code}: {f.message}" for f in outcome.findings)
    return "\n".join([", ".join(figures), *findings])


def _fail_if_bad(name: str, examination: Examination, *, strict: bool) -> None:
    from nognet.errors import SiteDataError

    outcomes = examination.outcomes
    if not outcomes:
        raise SiteDataError(
            f"{name}: there is no pair; a pair is one nodule of one patient at two dates: see "
            "'patient', 'nodule' and 'date' of the table",
            code="check",
        )
    failing = ("refused", "warning") if strict else ("refused",)
    bad = sum(outcome.status in failing for outcome in outcomes)
    if bad:
        what = "refused or warned of" if strict else "refused; `nognet prepare` leaves them out"
        raise SiteDataError(f"{name}: of {len(outcomes)} pairs {bad} are {what}", code="check")
