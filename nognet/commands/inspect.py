"""`nognet inspect`: what lies below a path, and what of it can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nognet.console import emit


def _print_codes(wanted: bool) -> None:
    if wanted:
        from nognet.data.code_table import codes_as_markdown

        emit(codes_as_markdown().rstrip("\n"))
        raise typer.Exit


def inspect(
    path: Annotated[Path, typer.Argument(help="A folder, a ZIP archive, or one file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    site: Annotated[
        Path | None, typer.Option(help="Take the limits of this site.yaml instead of the defaults.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Fail where a row is refused.")] = False,
    codes: Annotated[  # noqa: ARG001  handled by its callback
        bool,
        typer.Option(
            "--codes", callback=_print_codes, is_eager=True, help="Explain every code, and stop."
        ),
    ] = False,
) -> None:
    """Look through a hospital's export: every series and mask, one row each, and what is wrong.

    PATH is a folder, a ZIP archive or one file; it is only read.

    Rows are ok, warning, refused (prepare would refuse it too) or skipped (nothing to train on).
    Ends with exit code 4 where PATH is not there (with --strict: or a row is refused).
    """
    import SimpleITK as sitk

    from nognet.commands.inspect_table import as_table
    from nognet.commands.lines import text_width
    from nognet.commands.prepare import progress_to_stderr
    from nognet.config import PreparationConfig, load_site
    from nognet.data.inspect_tree import inspect as inspect_tree
    from nognet.errors import SiteDataError

    sitk.ProcessObject.GlobalWarningDisplayOff()  # what matters of it is said in the rows
    limits = load_site(site).preparation if site else PreparationConfig()
    with progress_to_stderr("inspect", what="files") as progress:
        rows = inspect_tree(path, limits=limits, progress=progress)
    if as_json:
        emit(json.dumps([row.as_json() for row in rows], indent=2, allow_nan=False))
    else:
        for line in as_table(rows, path, width=text_width()):
            emit(line)
    refused = sum(row.status == "refused" for row in rows)
    if strict and refused:
        raise SiteDataError(f"{path}: {refused} of {len(rows)} rows are refused", code="inspect")
