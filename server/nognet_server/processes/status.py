"""What a run does now, for other programs: `status.json` in the state and in the run folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nognet.files import write_json_atomic
from nognet.supervision.events import Event, EventWriter
from nognet.supervision.lock import holder_of
from nognet_server.phases import LOGGER, PHASE, Phase

STATUS_NAME = "status.json"
SERVER_LOG = "server.log"
"""In a run's folder of logs: what the supervisor and the ServerApp say, as JSON lines."""
LIVE = ("starting", "waiting", "training", "evaluating", "testing", "stopping")
"""States in which the server's process has to be alive."""
ENDED = ("completed", "failed", "interrupted")
PHASE_EVENT = "phase"


@dataclass(frozen=True)
class RunState:
    """One state of a run.

    Attributes:
        state: One of `LIVE` or `ENDED`.
        text: The same for people.
        run_folder: Absolute path.
        pid: The server's process.
        started: ISO 8601.
        changed: When this state began.
        round: The round that is played or tested.
        rounds: How many there will be.
        exit_code: The server's, once it has ended.
    """

    state: str
    text: str
    run_folder: str
    pid: int
    started: str
    changed: str
    round: int | None = None
    rounds: int | None = None
    exit_code: int | None = None


class PhaseTeller(logging.Handler):
    """Tells the supervisor in which phase the run is."""

    def __init__(self, events: EventWriter) -> None:
        super().__init__(logging.DEBUG)
        self.events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Send an event for a phase that has begun."""
        phase = getattr(record, PHASE, None)
        if isinstance(phase, Phase):
            known = {} if phase.round_number is None else {"round": phase.round_number}
            self.events.send(PHASE_EVENT, phase.text, state=phase.state, **known)


def tell_phases(events: EventWriter) -> None:
    """Send all phases of the run in this process to the supervisor."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # they are no lines for people
    logger.addHandler(PhaseTeller(events))


class StatusFiles:
    """Writes each change of the run's state (a thin shell around the files)."""

    def __init__(self, folders: Sequence[Path], run_folder: Path, rounds: int) -> None:
        self._paths = [folder / STATUS_NAME for folder in folders]
        now = _now()
        self._state = RunState(
            "starting", "starting", str(run_folder.resolve()), os.getpid(), now, now, rounds=rounds
        )
        self._write()

    def on_event(self, event: Event) -> None:
        """Follow what the ServerApp tells."""
        if event.kind == PHASE_EVENT:
            values = event.values
            number = values.get("round", self._state.round)
            self.change(str(values.get("state")), event.text, number)

    def change(
        self, state: str, text: str = "", number: int | None = None, exit_code: int | None = None
    ) -> None:
        """Note a state, with the round that it concerns."""
        number = self._state.round if number is None else number
        words = text or _words(state, number, self._state.rounds)
        changed = replace(
            self._state, state=state, text=words, round=number, exit_code=exit_code, changed=_now()
        )
        if replace(changed, changed=self._state.changed) != self._state:
            self._state = changed
            self._write()

    def _write(self) -> None:
        for path in self._paths:
            with contextlib.suppress(OSError):  # a full disk must not end the run
                write_json_atomic(path, asdict(self._state))


def read_state(path: Path) -> RunState | None:
    """Read a status file, or that of a folder; None if there is none that can be read."""
    source = path / STATUS_NAME if path.is_dir() else path
    try:
        return RunState(**json.loads(source.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def served_run(state: Path) -> Path | None:
    """Give the run that the server which holds a state folder is at.

    None if no server holds it, or if it has not said yet at which run it is.
    """
    told = read_state(state)
    if told is None or told.pid != holder_of(state):
        return None
    return Path(told.run_folder).resolve()


def _words(state: str, number: int | None, rounds: int | None) -> str:
    if state in {"training", "evaluating"}:
        return f"round {number} of {rounds}: {state}"
    if state == "testing":
        return f"final test of round {number}"
    return state


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
