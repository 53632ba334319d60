"""`nognet scan`: propose `studies.csv` from what the PACS exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.commands.lines import harmless, text_width, wrapped
from nognet.commands.prepare import progress_to_stderr
from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.data.site.scan import Proposal
    from nognet.data.site.scan_choice import PatientProposal
    from nognet.data.site.scan_values import LeftAside

LEFT_ASIDE_SHOWN = 40


def scan(
    folder: Annotated[Path, typer.Argument(help="Where the exported studies lie, in any order.")],
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("studies.csv"),
    segment: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Regular expression for names of segments that are nodules. "
            "[default: nodule|tumou?r|lesion|mass|gtv|neoplasm|finding, any case]",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print rows, choices and what was left aside as JSON.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a table that is there.")] = False,
) -> None:
    """Propose studies.csv from the DICOM headers below FOLDER, and explain each choice.

    FOLDER is where the exported studies lie, in any order; archives are not looked into.

    Each patient and date gets one axial CT series: one that a mask was drawn on, with the kernel of
    most dates, and of these the thinnest. Look the table over, then run `nognet check`.

    The table holds each PatientID as it is, and paths: it stays at the site. No name is read.

    Ends with exit code 4 where no pair can be proposed.
    """
    from nognet.data.site.scan import as_json as proposal_as_json
    from nognet.data.site.scan import scan_folder, write_table
    from nognet.data.site.scan_choice import DEFAULT_SEGMENTS
    from nognet.errors import SiteDataError

    if out.exists() and not force:
        raise SiteDataError(
            f"{out}: exists already and is left as it is; give another --out, or --force",
            code="exists",
        )
    with progress_to_stderr("scan", what="files") as progress:
        proposal = scan_folder(folder, segments=segment or DEFAULT_SEGMENTS, progress=progress)
    if as_json:
        emit(json.dumps(proposal_as_json(proposal, out.absolute().parent), indent=2))
    else:
        _explain(proposal, folder)
    if not proposal.rows:
        raise SiteDataError(_nothing(proposal, folder), code="empty-site")
    write_table(proposal, out, overwrite=force)
    say(f"{out}: {len(proposal.rows)} rows; it names patients and stays at the site")


def _explain(proposal: Proposal, folder: Path) -> None:
    """Print the choices to stdout and what was left aside to stderr."""
    with_rows = [patient for patient in proposal.patients if patient.rows]
    emit(
        f"{folder}: {proposal.dicom_files} of {proposal.files} files are DICOM; "
        f"{len(proposal.patients)} patients, {len(with_rows)} with pairs to propose"
    )
    width = text_width()
    for patient in with_rows:
        for line in harmless(_choices(patient, width)):
            emit(line)
    aside = [item for patient in proposal.patients for item in patient.left_aside]
    aside = [item for item in [*aside, *proposal.left_aside] if item.code != "not-chosen"]
    if aside:
        say(f"left aside ({len(aside)}):")
    for item in aside[:LEFT_ASIDE_SHOWN]:
        for line in harmless(wrapped(_about(item, folder), "  ", width=width)):
            say(line)
    if len(aside) > LEFT_ASIDE_SHOWN:
        say(f"  ... and {len(aside) - LEFT_ASIDE_SHOWN} more (see --json)")


def _choices(patient: PatientProposal, width: int) -> list[str]:
    from nognet.data.site.scan_choice import describe

    lines = []
    for choice in patient.choices:
        rows = [row for row in patient.rows if row.date == choice.date]
        nodules = ", ".join(row.nodule for row in rows)
        drawn = f"nodules {nodules}" if len(rows) > 1 else f"nodule {nodules}"
        told = f"{patient.patient}  {choice.date}  {describe(choice.series)}: {choice.why}; " + (
            drawn if rows else "not in the table: no nodule drawn"
        )
        lines += wrapped(told, "  ", width=width, hanging=" " * 6)
        others = [f"not {describe(o)}: {why}" for o, why in choice.instead_of]
        for text in [*others, *(f"note: {note}" for note in choice.notes)]:
            lines += wrapped(text, " " * 6, width=width)
    return lines


def _about(item: LeftAside, folder: Path) -> str:
    from nognet.data.site.scan import relative_to

    where = relative_to(item.path, folder.absolute())
    who = " ".join(filter(None, (item.patient, item.date)))
    return f"{item.code:18} {who + ': ' if who else ''}{where}: {item.reason}"


def _nothing(proposal: Proposal, folder: Path) -> str:
    if not proposal.dicom_files:
        return (
            f"{folder}: none of {proposal.files} files is DICOM; scan can only propose from DICOM "
            "headers: for NIfTI, NRRD or MHA write studies.csv by hand "
            "(patient,nodule,date,image,mask)"
        )
    return (
        f"{folder}: no pair can be proposed for any of {len(proposal.patients)} patients; a pair "
        "needs two dates with a usable axial CT and a nodule drawn on it (the reasons are above)"
    )
