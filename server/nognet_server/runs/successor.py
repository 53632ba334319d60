"""A site has withdrawn from a run: which run goes on in its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nognet.errors import ConfigError
from nognet.files import write_json_atomic
from nognet_server.runs.folder import RunFolder

_MANY_SITES = 1000


@dataclass(frozen=True)
class Superseded:
    """A site has withdrawn from a run, and another run goes on in its place."""

    site: str
    successor: RunFolder


def supersede(folder: RunFolder, successor: RunFolder, site: str) -> None:
    """Note that a site has withdrawn from the run, and which run goes on in its place."""
    write_json_atomic(folder.superseded, {"withdrawn": site, "goes_on_in": successor.path.name})


def superseded(folder: RunFolder) -> Superseded | None:
    """Tell which run goes on in place of this one; None if no site has withdrawn from it.

    Raises:
        ConfigError: the note can't be read: a site has withdrawn, and nobody knows which.
    """
    try:
        note = json.loads(folder.superseded.read_text(encoding="utf-8"))
        return Superseded(note["withdrawn"], RunFolder(folder.path.with_name(note["goes_on_in"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ConfigError(
            f"{folder.superseded}: can't be read ({type(err).__name__}); a site has withdrawn from "
            "this run: go on with --resume <run>-without-<site>",
            code="withdrawn",
        ) from err


def followed(folder: RunFolder) -> tuple[RunFolder, tuple[str, ...]]:
    """Follow a run to the one that goes on in its place, over every site that withdrew.

    Returns:
        The last run, and who withdrew on the way to it; the run itself and nobody, where none did.

    Raises:
        ConfigError: a run on the way is gone.
    """
    gone: list[str] = []
    while note := superseded(folder):
        gone.append(note.site)
        folder = note.successor
        if not folder.study.is_file() or len(gone) > _MANY_SITES:
            raise ConfigError(
                f"{folder.path}: no run is there, and it goes on in place of one that {note.site} "
                "has withdrawn from; restore it, or begin anew with --warm-start fresh once the "
                "site's key is removed",
                code="withdrawn",
            )
    return folder, tuple(gone)


def check_not_superseded(folder: RunFolder) -> None:
    """Refuse to go on with a run that a site has withdrawn from.

    Raises:
        ConfigError: it is one; names the run that goes on in its place.
    """
    if note := superseded(folder):
        raise ConfigError(
            f"{folder.path}: {note.site} has withdrawn from this run; go on with --resume "
            f"{note.successor.path}",
            code="withdrawn",
        )


def existing_run_folder(path: Path) -> RunFolder:
    """Open the folder of a run to resume.

    Raises:
        ConfigError: there is no run in it, or a site has withdrawn from it.
    """
    folder = RunFolder(path.resolve())
    check_not_superseded(folder)
    if not folder.study.is_file():
        raise ConfigError(
            f"{path}: no run to resume (it has no study.yaml); give a folder such as runs/demo"
        )
    return folder
