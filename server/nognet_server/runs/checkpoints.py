"""Checkpoints: safetensors for arrays, JSON in its metadata for the rest. No pickle anywhere.

A checkpoint holds one round's own history entry, so that a long run's files don't grow; all of them
together give the whole history.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from nognet.config import StudyConfig
from nognet.errors import ConfigError, FederationError, PrivacyError, WireError
from nognet.files import atomic_path
from nognet.wire.flat import checked_flat
from nognet_server.central_dp.charges import CentralState
from nognet_server.runs.folder import RunFolder
from nognet_server.runs.state import Best, ServerState

SCHEMA_VERSION = 3
_KEY = "nognet-checkpoint"
_WEIGHTS = "weights"
_STRATEGY = "strategy."


@dataclass(frozen=True)
class RunIdentity:
    """What must be the same for a checkpoint to be gone on with.

    Attributes:
        run_token: Random name of the run, the same before and after a resume; sites key the
            replies they keep by it.
        study_json: The study, as sites get it.
        contract_hash: Of the contract.
        started: When the run first started, UTC.
        began_with: What its first weights come from (docs/operations.md, "What a run begins with").
    """

    run_token: str
    study_json: str
    contract_hash: str
    started: str
    began_with: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: RunFolder, identity: RunIdentity, state: ServerState) -> Path:
    """Write the state after a round in one step.

    Raises:
        FederationError: the file can't be written (a full disk, say).
    """
    header = {
        "schema_version": SCHEMA_VERSION,
        "identity": asdict(identity),
        "round": state.round_number,
        "best": asdict(state.best) if state.best else None,
        "entry": state.history[-1] if state.history else None,
        "strikes": dict(state.strikes),
        "withdrawn": list(state.withdrawn),
        "lineage": dict(state.lineage),
        "central_privacy": state.central.to_values() if state.central else None,
    }
    arrays: dict[str, NDArray[np.float32]] = {_WEIGHTS: state.weights}
    arrays |= {f"{_STRATEGY}{name}": array for name, array in state.strategy.items()}
    path = folder.checkpoint(state.round_number)
    try:
        with atomic_path(path) as temporary:
            text = json.dumps(header, sort_keys=True, allow_nan=False)
            safetensors.numpy.save_file(arrays, temporary, metadata={_KEY: text})
    except (OSError, safetensors.SafetensorError) as err:
        cause = err.strerror if isinstance(err, OSError) else str(err)
        raise FederationError(
            f"{path}: the checkpoint can't be written ({type(err).__name__}: {cause}); the "
            f"rounds before are safe; free some space and resume with --resume {folder.path}",
            code="checkpoint-not-written",
        ) from err
    return path


def latest_round(folder: RunFolder) -> int | None:
    """Find the last round that has a checkpoint; None if there is none."""
    pattern = re.compile(r"round_(\d{4,})\.nognet")
    found = [pattern.fullmatch(path.name) for path in folder.checkpoints.glob("round_*.nognet")]
    return max((int(match.group(1)) for match in found if match), default=None)


def load_identity(folder: RunFolder, round_number: int) -> RunIdentity:
    """Read whose checkpoint it is, to be checked before its arrays are read.

    Raises:
        WireError: the file is missing, damaged or of another form.
    """
    path = folder.checkpoint(round_number)
    try:
        return RunIdentity(**_read_header(path)["identity"])
    except (KeyError, TypeError) as err:
        raise _damaged(path, f"{type(err).__name__} in its metadata") from err


def load_checkpoint(folder: RunFolder, round_number: int, *, length: int) -> ServerState:
    """Read a checkpoint, and the history from it and those before it.

    Raises:
        WireError: the file is missing, damaged or of another form or length.
    """
    path = folder.checkpoint(round_number)
    header, arrays = _read(path)
    try:
        best = Best(**header["best"]) if header["best"] else None
        number = int(header["round"])
        weights = arrays[_WEIGHTS]
        strikes = {str(site): int(count) for site, count in header["strikes"].items()}
        withdrawn = tuple(str(site) for site in header["withdrawn"])
        lineage = {str(site): int(first) for site, first in header["lineage"].items()}
        spent = header.get("central_privacy")
        central = CentralState.from_values(spent) if spent else None
    except (AttributeError, KeyError, TypeError, ValueError, PrivacyError) as err:
        raise _damaged(path, f"{type(err).__name__} in its metadata") from err
    kept = {name.removeprefix(_STRATEGY): a for name, a in arrays.items() if name != _WEIGHTS}
    checked_flat(weights, length, what=f"{path}, weights")
    for name, array in kept.items():  # the size of the weights, or a single number
        size = 1 if array.shape == (1,) else length
        checked_flat(array, size, what=f"{path}, array '{name}'")
    history = _history(folder, number)
    return ServerState(number, weights, kept, best, history, strikes, withdrawn, central, lineage)


def load_weights(folder: RunFolder, round_number: int, *, length: int) -> NDArray[np.float32]:
    """Read the global weights after a round.

    Raises:
        WireError: the file is missing, damaged or of another length.
    """
    path = folder.checkpoint(round_number)
    _, arrays = _read(path)
    if _WEIGHTS not in arrays:
        raise _damaged(path, "no weights")
    return checked_flat(arrays[_WEIGHTS], length, what=str(path))


def check_same_study(stored_json: str, study: StudyConfig) -> None:
    """Refuse to go on with another study.

    Raises:
        ConfigError: every key that differs, with both values.
    """
    before = _flattened(json.loads(stored_json))
    now = _flattened(json.loads(study.for_sites()))
    lines = [
        f"  {key}: {before.get(key, '(absent)')} in the run, {now.get(key, '(absent)')} now"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if lines:
        raise ConfigError(
            "the run can't be resumed with another study; start a new run, or resume with the run "
            "folder's own study.yaml. What differs:\n" + "\n".join(lines)
        )


def _history(folder: RunFolder, round_number: int) -> tuple[Mapping[str, Any], ...]:
    """Read the entries of rounds 1 to `round_number`; deleted checkpoints leave theirs out."""
    paths = [folder.checkpoint(number) for number in range(1, round_number + 1)]
    entries = [_read_header(path)["entry"] for path in paths if path.is_file()]
    return tuple(entry for entry in entries if entry is not None)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    header = _read_header(path)
    try:
        return header, safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as err:
        raise _damaged(path, type(err).__name__) from err


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="np") as opened:
            header = json.loads((opened.metadata() or {})[_KEY])
    except FileNotFoundError as err:
        raise WireError(f"{path}: no such checkpoint", code="no-checkpoint") from err
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as err:
        raise _damaged(path, type(err).__name__) from err
    if not isinstance(header, dict) or header.get("schema_version") != SCHEMA_VERSION:
        raise _damaged(path, "another schema version")
    return header


def _damaged(path: Path, found: str) -> WireError:
    return WireError(
        f"{path}: not a checkpoint of this release or damaged ({found}); remove it to resume from "
        "the round before",
        code="bad-checkpoint",
    )


def _flattened(value: Any, path: str = "") -> dict[str, str]:  # noqa: ANN401  any JSON value
    if not isinstance(value, dict):
        return {path: json.dumps(value)}
    inner = (_flattened(v, f"{path}.{key}" if path else str(key)) for key, v in value.items())
    return {key: text for part in inner for key, text in part.items()}
