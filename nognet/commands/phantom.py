"""`nognet phantom`: synthetic hospitals with real DICOM files and a known growth law."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.console import emit, say

if TYPE_CHECKING:
    from rich.table import Table

    from nognet.phantom.cohort import SiteSummary
    from nognet.types import RoiPair, Stratum

Progress = Callable[[int, int], None]


def phantom(  # noqa: PLR0913, PLR0917  one parameter an option, typer passes them by name
    out: Annotated[Path, typer.Option(help="Folder to write the hospitals to.")],
    sites: Annotated[int, typer.Option(min=1, max=100, help="Number of hospitals.")] = 3,
    patients: Annotated[int, typer.Option(min=1, max=999, help="Patients a hospital.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds write equal files.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core.")
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(help="A real CT (DICOM folder, NIfTI, NRRD, MHA) to grow the nodules in."),
    ] = None,
    roi: Annotated[
        bool, typer.Option("--roi", help="Write prepared ROI pairs at once, without DICOM.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace phantom hospitals that are already there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write phantom hospitals: CT series, SEG or RTSTRUCT masks, studies.csv, site.yaml.

    No patient is in it: the names are PHANTOM^A001 and the like. truth.json holds what is known of
    every nodule, for tests; training never reads it.
    """
    from nognet.phantom.cohort import write_cohort

    if roi and background is not None:
        raise typer.BadParameter("--roi draws its own lung; leave out --background")
    with _progress_bar() as progress:
        if roi:
            summaries = _write_roi_sites(
                out, sites=sites, patients=patients, seed=seed, overwrite=force, progress=progress
            )
        else:
            summaries = write_cohort(
                out,
                sites=sites,
                patients=patients,
                seed=seed,
                workers=workers,
                background=background,
                overwrite=force,
                progress=progress,
            )
    _write_open_keys(summaries, seed)
    if as_json:
        sites_written = [{**asdict(s), "folder": str(s.folder)} for s in summaries]
        emit(json.dumps({"out": str(out), "seed": seed, "sites": sites_written}, indent=2))
        return
    _print_table(summaries)
    say(f"written to {out}; synthetic, no patient is in it")


def _write_open_keys(summaries: Sequence[SiteSummary], seed: int) -> None:
    """Give each phantom site a key of pseudonyms that follows from the seed.

    A hospital's key is random and secret. A phantom has nothing to hide, and with an open key its
    pseudonyms, hence its split, are the same wherever the same seed is used.
    """
    from nognet.data.site.pseudonym import KEY_BYTES, write_key

    for summary in summaries:
        text = f"phantom:{seed}:{summary.folder.name}"
        key = hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()
        write_key(summary.folder / "state", key)


def _write_roi_sites(
    out: Path, *, sites: int, patients: int, seed: int, overwrite: bool, progress: Progress
) -> tuple[SiteSummary, ...]:
    """Write each hospital's pairs straight into the store that preparation would write."""
    from nognet.config import RoiConfig, SplitConfig
    from nognet.data.site.split import assign_splits, patient_stratum
    from nognet.data.store import write_store
    from nognet.phantom.cohort import make_room, write_site_files
    from nognet.phantom.patient import draw_patient, plan_patients
    from nognet.phantom.roi import pairs_of_patient
    from nognet.phantom.scanner import scanner_of_site, site_name
    from nognet.phantom.study import nodule_truth

    folders = [out / site_name(site) for site in range(sites)]
    make_room(out, folders, overwrite=overwrite)
    summaries = []
    for site, folder in enumerate(folders):
        scanner = scanner_of_site(site, seed)
        pairs: list[RoiPair] = []
        nodules: list[dict[str, Any]] = []
        for number, plan in enumerate(plan_patients(site, patients, seed)):
            patient = draw_patient(plan, seed)
            pairs += pairs_of_patient(patient, scanner, roi=RoiConfig(), seed=seed)
            nodules += nodule_truth(patient)
            progress(site * patients + number + 1, sites * patients)
        of_patient: dict[str, list[Stratum]] = {}
        for pair in pairs:
            of_patient.setdefault(pair.patient_id, []).append(pair.stratum)
        strata = {patient: patient_stratum(found) for patient, found in of_patient.items()}
        splits = assign_splits(strata, SplitConfig(), seed=seed)
        write_store(folder / "cache", pairs, splits, roi=RoiConfig())
        summaries.append(write_site_files(site, folder, seed, rows=(), nodules=nodules, series=0))
    return tuple(summaries)


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    """Show patients written and the time left on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("phantom patients", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def _print_table(summaries: Sequence[SiteSummary]) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 100).print(_table(summaries))


def _table(summaries: Sequence[SiteSummary]) -> Table:
    """Tabulate what was written, with the mix of growth strata over pairs."""
    from rich.table import Table

    table = Table(title="Phantom cohort (strata of pairs by true volume: +25 % / -20 %)")
    table.add_column("site")
    table.add_column("masks")
    for name in ("patients", "nodules", "series", "pairs", "growing", "stable", "shrinking"):
        table.add_column(name, justify="right")
    for s in summaries:
        shares = [f"{count} ({100 * count / max(s.pairs, 1):.0f} %)" for count in s.strata.values()]
        counts = [str(n) for n in (s.patients, s.nodules, s.series, s.pairs)]
        table.add_row(s.site, s.mask_format, *counts, *shares)
    return table
