"""`nognet deidentify`: de-identified copies of a site's DICOM files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.commands.lines import harmless, text_width, wrapped
from nognet.commands.prepare import progress_to_stderr
from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.data.deid.export import LeftOut

LEFT_OUT_SHOWN = 20


def deidentify(
    source: Annotated[Path, typer.Argument(help="Folder of studies; it is only read.")],
    destination: Annotated[Path, typer.Argument(help="New or empty folder for the copies.")],
    site: Annotated[Path, typer.Option(help="The hospital's site.yaml; its key is the seed.")],
) -> None:
    """Copy CT images, SEG and RTSTRUCT without what identifies a patient.

    A copy keeps what image, geometry and masks need; every other tag is removed, private tags and
    overlays too. The site's key gives a patient the same fake identity each time and shifts all of
    his dates alike, so intervals stay exact. Images that may show text are left out and listed.

    Federated training doesn't need it: there the files never leave the site. Have the copies looked
    over before they do; a face can be seen in a CT of the head.

    SOURCE is a folder of studies and is only read; DESTINATION is new or empty. Needs the extra
    `deid` of nognet.
    """
    from nognet.config import load_site
    from nognet.data.deid.export import export_deidentified
    from nognet.data.site.pseudonym import load_or_make_key
    from nognet.errors import SiteDataError

    pseudonyms = load_or_make_key(load_site(site).state)
    with progress_to_stderr("deidentify", what="files") as progress:
        export = export_deidentified(source, destination, pseudonyms, progress=progress)
    for line in harmless(left_out_lines(export.left_out, width=text_width())):
        say(line)
    if not export.written:
        raise SiteDataError(f"{source}: nothing could be exported", code="empty-site")
    emit(f"{destination}: {export.written} files of {export.patients} patients")


def left_out_lines(left_out: Sequence[LeftOut], *, width: int) -> Iterator[str]:
    """List what was left out: a line a file, or a folder where several have one reason."""
    groups: dict[tuple[str, str, Path], list[LeftOut]] = {}
    for item in left_out:
        groups.setdefault((item.code, item.reason, item.path.parent), []).append(item)
    for (code, reason, folder), items in list(groups.items())[:LEFT_OUT_SHOWN]:
        where = f"{items[0].path}" if len(items) == 1 else f"{len(items)} files in {folder}"
        told = f"  left out  {code:14} {where}: {reason}"
        yield from wrapped(told, "", width=width, hanging=" " * 12)
    if len(groups) > LEFT_OUT_SHOWN:
        counts = Counter(item.code for item in left_out)
        listed = ", ".join(f"{count} {code}" for code, count in sorted(counts.items()))
        yield f"  ... {len(left_out)} in all: {listed}"
