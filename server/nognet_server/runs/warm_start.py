"""Go on with what there is: an unfinished run of the same study, or a site released to it.

A run that a site has withdrawn from goes on as another one; a new run would ask that site again,
so none is begun in its place unless somebody says so.

Such a run has weights of its own: they go before the study's `init`, which is for new runs.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from enum import StrEnum

from nognet.config import StudyConfig
from nognet.errors import ConfigError, WireError
from nognet.fit.parts import shared_spec
from nognet.report.metrics_file import read_metrics
from nognet.wire.flat import flat_length
from nognet_server.runs.checkpoints import (
    check_same_study,
    latest_round,
    load_checkpoint,
    load_identity,
    save_checkpoint,
)
from nognet_server.runs.folder import RunFolder, load_run_study
from nognet_server.runs.successor import followed

_log = logging.getLogger("nognet.server")


class WarmStart(StrEnum):
    """Whether a study goes on with its unfinished run: if there is one, never, or it must."""

    auto = "auto"
    fresh = "fresh"
    require = "require"


def unfinished_run(study: StudyConfig, how: WarmStart) -> RunFolder | None:
    """Find the study's last run, where it is not finished and of this very study.

    Args:
        study: To go on with.
        how: `fresh` never looks; `auto` says why it begins anew; `require` refuses to.

    Returns:
        The run's folder, of the one that goes on where sites have withdrawn; None to begin anew.

    Raises:
        ConfigError: `require`, and there is none, it is finished, or the study differs: each key;
            or `auto`, and a new run would ask a site that has withdrawn.
    """
    if how is WarmStart.fresh:
        return None
    newest = _newest_run(study)
    folder, gone = (None, ()) if newest is None else followed(newest)
    try:
        return _unfinished(folder, study)
    except (ConfigError, WireError) as err:
        if how is WarmStart.require:
            raise ConfigError(
                f"--warm-start require: {err}; begin anew with --warm-start fresh",
                code="no-warm-start",
            ) from err
        if gone:
            raise ConfigError(
                f"--warm-start auto: {err}; a new run would ask {', '.join(gone)} again, which "
                "has withdrawn: remove its key, and begin one with --warm-start fresh",
                code="withdrawn",
            ) from err
        _log.info("a new run is begun: %s", err)
        return None


def lacks_only_its_report(folder: RunFolder, study: StudyConfig) -> bool:
    """Whether a run is completed and only its report was not written, on a full disk for example.

    Nobody is asked anything then: its sites would be tested again.

    Raises:
        ConfigError: the run is of another study.
        WireError: the checkpoint is damaged.
    """
    last = latest_round(folder)
    if last is None or not _is_completed(folder) or _is_reported(folder):
        return False
    check_same_study(load_identity(folder, last).study_json, study)
    return True


def release(folder: RunFolder, site: str) -> None:
    """Let a quarantined site take part again when the run is resumed.

    Raises:
        ConfigError: the run has no checkpoint, or nothing is held against the site.
        WireError: the checkpoint is damaged.
    """
    last = latest_round(folder)
    if last is None:
        raise ConfigError(f"{folder.path}: no checkpoint to go on from", code="no-checkpoint")
    length = flat_length(shared_spec(load_run_study(folder)))
    state = load_checkpoint(folder, last, length=length)
    if site not in state.strikes:
        held = ", ".join(state.strikes) or "nobody"
        raise ConfigError(
            f"{folder.path}: nothing is held against '{site}'; it is against {held}",
            code="no-such-site",
        )
    left = {name: count for name, count in state.strikes.items() if name != site}
    save_checkpoint(folder, load_identity(folder, last), replace(state, strikes=left))


def _newest_run(study: StudyConfig) -> RunFolder | None:
    pattern = re.compile(rf"{re.escape(study.name)}(?:-(\d+))?")
    found = {
        int(match[1] or 1): path
        for path in (study.runs.iterdir() if study.runs.is_dir() else ())
        if (match := pattern.fullmatch(path.name)) and (path / "study.yaml").is_file()
    }
    return RunFolder(found[max(found)]) if found else None


def _unfinished(folder: RunFolder | None, study: StudyConfig) -> RunFolder:
    if folder is None:
        raise ConfigError(f"{study.runs} holds no run of study '{study.name}'")
    last = latest_round(folder)
    if last is None:  # killed before its first round, perhaps while it was pre-trained
        check_same_study(load_run_study(folder).for_sites(), study)
        return folder
    check_same_study(load_identity(folder, last).study_json, study)
    if _is_completed(folder) and _is_reported(folder):
        raise ConfigError(f"{folder.path} is finished")
    return folder


def _is_completed(folder: RunFolder) -> bool:
    """Whether the run says so itself: a limit on privacy may end it before its last round."""
    try:
        return read_metrics(folder.metrics).status == "completed"
    except WireError:
        return False


def _is_reported(folder: RunFolder) -> bool:
    """Whether the report is of the run's end, and not of the rounds before."""
    try:
        return folder.report.stat().st_mtime_ns >= folder.metrics.stat().st_mtime_ns
    except FileNotFoundError:
        return False
