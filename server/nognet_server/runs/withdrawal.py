"""A site withdraws: a run goes on from before its first contribution, without it.

Every round's entry holds which sites counted and with what weight; every checkpoint, from which
round on the weights hold something of which site, so that a deleted checkpoint hides no trace. The
last state whose weights hold nothing of the site becomes the last one of a new run, under a new
token; the old run's later weights, in which the site's data left a trace, can be deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nognet.errors import ConfigError, FederationError
from nognet.files import atomic_folder
from nognet_server.runs.checkpoints import latest_round
from nognet_server.runs.folder import RunFolder, load_run_study
from nognet_server.runs.kept_rounds import bring_charges, copy_kept, is_kept, state_after
from nognet_server.runs.state import ServerState
from nognet_server.runs.successor import supersede, superseded


@dataclass(frozen=True)
class Withdrawal:
    """What a withdrawal costs.

    Attributes:
        site: Who withdraws.
        rounds: Rounds in which it counted, with its weight in each.
        keep_round: The last round without a trace of it.
        last_round: The last round of the run.
        seconds_lost: Wall time of the rounds to be trained again.
        metric: The study's selection metric.
        value_before: Its best value in the run.
        value_kept: Its best value up to `keep_round`; None if no round is kept.
    """

    site: str
    rounds: Mapping[int, float | None]
    keep_round: int
    last_round: int
    seconds_lost: float
    metric: str
    value_before: float | None
    value_kept: float | None

    @property
    def rounds_lost(self) -> int:
        """Rounds to be trained again."""
        return self.last_round - self.keep_round

    def lines(self) -> list[str]:
        """Say what it costs."""
        if not self.rounds_lost:
            return [f"{self.site} counted in no round: nothing is lost, it is asked no more"]
        share = ", ".join(
            f"{number}: {'hidden' if weight is None else f'{weight:.1%}'}"
            for number, weight in self.rounds.items()
        )
        return [
            f"{self.site} counted in {len(self.rounds)} of {self.last_round} rounds ({share})",
            (
                f"kept: the state after round {self.keep_round}; to be trained again: "
                f"{self.rounds_lost} rounds, {self.seconds_lost:.0f} s at their pace"
            ),
            (
                f"best validation {self.metric}: {_figure(self.value_before)} with the site, "
                f"{_figure(self.value_kept)} in the rounds kept"
            ),
        ]


def contributions(history: Sequence[Mapping[str, Any]], site: str) -> dict[int, float | None]:
    """Give the rounds in which a site counted, with its weight.

    >>> contributions([{"round": 1, "sites": {"site_a": {"weight": 0.25}}}], "site_a")
    {1: 0.25}
    """
    parts = {int(entry["round"]): entry["sites"].get(site) for entry in history}
    return {number: _share(part) for number, part in parts.items() if part and _share(part) != 0}


def _share(part: Mapping[str, Any]) -> float | None:
    """Give a site's weight in a round; None: it counted, by as much as a secure sum hides."""
    weight = part.get("weight", 0.0)
    return None if weight is None else float(weight)


def plan_withdrawal(folder: RunFolder, site: str) -> Withdrawal:
    """Find the last state without a trace of a site.

    Raises:
        ConfigError: the run knows no such site, or it has withdrawn already.
        FederationError: the run has no checkpoint.
        WireError: a checkpoint is missing or damaged.
    """
    state = _last_state(folder)
    known = {name for entry in state.history for name in entry["sites"]} | {*state.lineage}
    if site in state.withdrawn:
        raise ConfigError(f"{site} has withdrawn from {folder.path} already", code="withdrawn")
    if site not in known:
        raise ConfigError(
            f"{folder.path}: no site '{site}' took part; the run knows "
            f"{', '.join(sorted(known)) or 'none'}",
            code="no-such-site",
        )
    rounds = contributions(state.history, site)
    first = state.lineage.get(site)
    keep = state.round_number if first is None else first - 1
    if keep < 0:
        raise FederationError(
            f"{folder.path}: {site} shaped the weights that this run began from; nothing in it is "
            "without a trace of the site. Start the study anew from other weights",
            code="parent-weights",
        )
    if not folder.checkpoint(keep).is_file():
        raise FederationError(
            f"{folder.checkpoint(keep)}: missing; it is the last state without a trace of {site}. "
            "Restore it, or start the study anew without the site",
            code="no-checkpoint",
        )
    lost = [entry for entry in state.history if entry["round"] > keep]
    return Withdrawal(
        site=site,
        rounds=rounds,
        keep_round=keep,
        last_round=state.round_number,
        seconds_lost=sum(float(entry["seconds"]) for entry in lost),
        metric=load_run_study(folder).selection.metric,
        value_before=state.best.value if state.best else None,
        value_kept=kept.value if (kept := state_after(folder, keep).best) else None,
    )


def withdraw(folder: RunFolder, plan: Withdrawal) -> RunFolder:
    """Make the run that goes on without the site: `<run>-without-<site>`; the old one does not.

    Killed or failed on the way, it is made good by a second call.

    Raises:
        ConfigError: there is such a folder already.
        FederationError: it can't be written; the second call may come once it can.
    """
    target = RunFolder(folder.path.with_name(f"{folder.path.name}-without-{plan.site}"))
    try:
        if target.path.exists():
            _check_lacks_only_the_note(folder, target, plan)
        else:
            with atomic_folder(target.path) as path:
                copy_kept(folder, RunFolder(path), plan.site, plan.keep_round)
        supersede(folder, target, plan.site)
    except (OSError, FederationError) as err:
        cause = err.__cause__ or err
        why = cause.strerror if isinstance(cause, OSError) else str(cause)
        raise FederationError(
            f"{target.path}: can't be made ({type(cause).__name__}: {why}); {plan.site} has not "
            f"withdrawn yet from {folder.path}: free some space, and withdraw again",
            code="withdrawal-not-made",
        ) from err
    return target


def _check_lacks_only_the_note(folder: RunFolder, target: RunFolder, plan: Withdrawal) -> None:
    """Refuse a folder that is there, unless this withdrawal made it and was killed right after."""
    if superseded(folder) is not None:
        raise ConfigError(
            f"{target.path}: exists already; the withdrawal was made before: go on with --resume "
            f"{target.path}, or remove it",
            code="exists",
        )
    kept = is_kept(folder, target, plan.site, plan.keep_round)
    if not kept or not bring_charges(folder, target):
        raise ConfigError(
            f"{target.path}: exists already, and is not {folder.path} up to round "
            f"{plan.keep_round} without {plan.site}; nobody has withdrawn: move that folder away, "
            "and withdraw again",
            code="exists",
        )


def delete_traces(folder: RunFolder, plan: Withdrawal) -> list[Path]:
    """Delete the old run's weights in which the site's data left a trace; give what was deleted.

    The last checkpoint goes last: it tells since when there are traces.
    """
    later = range(plan.keep_round + 1, plan.last_round + 1)
    paths = [folder.model, *(folder.checkpoint(number) for number in later)] if later else []
    there = [path for path in paths if path.is_file()]
    for path in there:
        path.unlink()
    return there


def delete_left_traces(folder: RunFolder, site: str) -> list[Path]:
    """Delete what `delete_traces` would have, after a withdrawal without it or one killed in it.

    Returns:
        What was deleted; nothing if the site has not withdrawn, or no trace was left.
    """
    note = superseded(folder)
    if note is None or note.site != site or site not in _last_state(folder).lineage:
        return []
    return delete_traces(folder, plan_withdrawal(folder, site))


def _last_state(folder: RunFolder) -> ServerState:
    last = latest_round(folder)
    if last is None:
        raise FederationError(
            f"{folder.path}: no checkpoint; nothing can be gone on with", code="no-checkpoint"
        )
    return state_after(folder, last)


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
