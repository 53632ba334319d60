"""Which sites an interrupted attempt at a round had in its secure sum."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from nognet.errors import FederationError
from nognet.files import write_json_atomic
from nognet_server.roster import Member
from nognet_server.runs.opening import Run
from nognet_server.runs.state import ServerState


def same_as_before(run: Run, state: ServerState, here: Mapping[str, Member]) -> dict[str, Member]:
    """Ask whom an interrupted attempt at this round had in its sum, and nobody else.

    The sites agree to one list of sites a round: two sums that differ by a site would uncover it.

    Raises:
        FederationError: one of them is not here.
    """
    path = run.folder.secure_round
    if not path.is_file():
        return dict(here)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        number, sites = int(before["round"]), [str(site) for site in before["sites"]]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise FederationError(
            f"{path}: damaged ({type(err).__name__}); it says which sites an interrupted round had "
            "in its sum. Restore it; without it the sites refuse any other list",
            code="secure-round",
        ) from err
    if number != state.round_number + 1:
        return dict(here)
    if missing := sorted(set(sites) - set(here)):
        raise FederationError(
            f"round {number} was interrupted while the sum of {', '.join(sites)} was made, and the "
            f"sites give no other sum of it; {', '.join(missing)} not here. Bring them back and "
            f"resume with --resume {run.folder.path}",
            code="secure-other-sites",
        )
    return {site: here[site] for site in sites}


def note_asked(run: Run, round_number: int, sites: Sequence[str]) -> None:
    """Keep which sites will be asked to agree to a round's sum."""
    write_json_atomic(run.folder.secure_round, {"round": round_number, "sites": list(sites)})
