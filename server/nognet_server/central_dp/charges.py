"""What a run has released so far: a file in the run folder, written before each release.

A checkpoint comes after a round's evaluation, for which its weights have been sent out already. A
crash in between must not take the charge back: the file holds it, and the round that is played
again has other noise and is a second release, with a charge of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nognet.errors import FederationError, PrivacyError
from nognet.files import write_json_atomic
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet_server.runs.folder import RunFolder

_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CentralState:
    """What central privacy carries from round to round.

    Attributes:
        clip_norm: Of the next round.
        history: All releases of the run, and of the run that it goes on from.
    """

    clip_norm: float
    history: PrivacyHistory = field(default_factory=PrivacyHistory)

    def to_values(self) -> dict[str, Any]:
        """Write JSON values for a checkpoint."""
        return {"clip_norm": self.clip_norm, "releases": _rows(self.history)}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> CentralState:
        """Read what `to_values` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is no such thing.
            PrivacyError: a release in it is none.
        """
        norm = float(values["clip_norm"])
        if not 0 < norm < math.inf:
            raise ValueError(f"clip_norm is {norm}, expected > 0")
        return cls(norm, _history(values["releases"]))


def write_charges(
    folder: RunFolder, history: PrivacyHistory, *, noise_from: str = "coordinator"
) -> None:
    """Put the releases on disk, the one that is about to be made among them; synced.

    Raises:
        FederationError: they can't be written, so the release may not be made.
    """
    path = folder.charges
    value = {
        "schema_version": _SCHEMA_VERSION,
        "noise_from": noise_from,
        "releases": _rows(history),
    }
    try:
        write_json_atomic(path, value)
    except OSError as err:
        raise FederationError(
            f"{path}: the privacy charge of the round can't be written ({err.strerror}), so the "
            f"round is not released; free some space and resume with --resume {folder.path}",
            code="charge-not-written",
        ) from err


def read_charges(folder: RunFolder, *, at_least: PrivacyHistory) -> PrivacyHistory:
    """Read the releases of a run that is gone on with.

    Args:
        folder: Of the run.
        at_least: What the checkpoint knows of.

    Raises:
        PrivacyError: the file is missing, damaged, or knows less than the checkpoint.
    """
    path = folder.charges
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        version = value["schema_version"]
        history = _history(value["releases"])
    except (OSError, ValueError, KeyError, TypeError, PrivacyError) as err:
        raise _damaged(path, f"{type(err).__name__} on reading") from err
    if version != _SCHEMA_VERSION:
        raise _damaged(path, f"schema_version {version}, expected {_SCHEMA_VERSION}")
    if history.steps < at_least.steps:
        raise _damaged(path, f"{history.steps} releases, the checkpoint has {at_least.steps}")
    return history


def _rows(history: PrivacyHistory) -> list[dict[str, float | int]]:
    return [
        {"noise_multiplier": entry.noise_multiplier, "rounds": entry.steps}
        for entry in history.entries
    ]


def _history(rows: Iterable[Mapping[str, Any]]) -> PrivacyHistory:
    taken = (NoisedSteps(float(row["noise_multiplier"]), 1.0, row["rounds"]) for row in rows)
    return PrivacyHistory(tuple(taken))


def _damaged(path: Path, found: str) -> PrivacyError:
    return PrivacyError(
        f"{path}: the record of what the run has released can't be relied on ({found}); expected "
        "every release up to the checkpoint. Restore it from a backup, or start a new run: without "
        "it nobody knows what was spent",
        code="bad-charges",
    )
