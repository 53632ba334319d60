"""The rounds of a run that stay when a site withdraws, as the beginning of the run without it."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace

import numpy as np

from nognet.errors import ConfigError, WireError
from nognet.files import atomic_path
from nognet.fit.parts import shared_spec
from nognet.wire.flat import flat_length
from nognet_server.runs.checkpoints import load_checkpoint, load_identity, save_checkpoint
from nognet_server.runs.folder import RunFolder, load_run_study
from nognet_server.runs.metrics_document import utc_now
from nognet_server.runs.state import ServerState


def state_after(folder: RunFolder, number: int) -> ServerState:
    """Read the state after a round, as long as the run's own study says.

    Raises:
        ConfigError: the folder holds no study.
        WireError: the checkpoint is missing or damaged.
    """
    length = flat_length(shared_spec(load_run_study(folder)))
    return load_checkpoint(folder, number, length=length)


def copy_kept(folder: RunFolder, target: RunFolder, site: str, keep_round: int) -> None:
    """Copy a run up to a round, under a new token, with the site among those that have withdrawn.

    Raises:
        OSError: the target can't be written.
        FederationError: a checkpoint of it can't.
        WireError: a checkpoint of the run is damaged.
    """
    shutil.copy2(folder.study, target.study)
    if folder.charges.is_file():  # what the old run has released stays spent
        shutil.copy2(folder.charges, target.charges)
    identity = replace(
        load_identity(folder, keep_round), run_token=secrets.token_hex(16), started=utc_now()
    )
    for number in range(keep_round + 1):
        if folder.checkpoint(number).is_file():
            state = state_after(folder, number)
            gone = tuple(sorted({*state.withdrawn, site}))
            strikes = {name: count for name, count in state.strikes.items() if name != site}
            save_checkpoint(target, identity, replace(state, withdrawn=gone, strikes=strikes))


def is_kept(folder: RunFolder, target: RunFolder, site: str, keep_round: int) -> bool:
    """Whether `copy_kept` made the target, which may have been trained on since."""
    before, identity = state_after(folder, keep_round), load_identity(folder, keep_round)
    try:
        after, found = state_after(target, keep_round), load_identity(target, keep_round)
    except (ConfigError, WireError):
        return False
    return (
        set(after.withdrawn) == {*before.withdrawn, site}
        and np.array_equal(after.weights, before.weights)
        and replace(found, run_token=identity.run_token, started=identity.started) == identity
    )


def bring_charges(folder: RunFolder, target: RunFolder) -> bool:
    """Bring what the run has released since it was copied to the copy; whether the copy has it all.

    A copy that was trained on has releases of its own, and gets none.

    Raises:
        OSError: the file can't be written.
    """
    if not folder.charges.is_file():
        return True
    if target.charges.is_file() and target.charges.read_bytes() == folder.charges.read_bytes():
        return True
    if target.metrics.exists():
        return False
    with atomic_path(target.charges) as temporary:
        shutil.copy2(folder.charges, temporary)
    return True
