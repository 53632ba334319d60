"""What a site does now: one line a change, and a file for other programs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nognet.files import write_json_atomic
from nognet.supervision.children import describe_exit
from nognet.supervision.events import Event
from nognet.supervision.lock import holder_of

STATUS_NAME = "status.json"
_NEEDS_LINK = ("waiting", "working", "refused")
_TASKS = {
    "query": "joining a run",
    "query.share": "giving its model to visit other sites",
    "train": "training",
    "evaluate": "evaluating",
}
log = logging.getLogger("nognet.client")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class SiteStatus:
    """What the site does now; each change is one line, and `status.json` for other programs.

    A task goes on while the coordinator is away, so the two are kept apart.

    Attributes:
        link_up: The coordinator answered last.
        task: What is worked on, with or without the coordinator; empty for nothing.
        connection_since: When the site came online, or went offline.
    """

    path: Path
    address: str
    site: str
    faults: str = ""
    state: str = ""
    text: str = ""
    was_connected: bool = False
    link_up: bool = False
    task: str = ""
    connection_since: str = field(default_factory=_now)
    last_task: str | None = None
    last_round: int | None = None
    task_since: float = field(default_factory=time.monotonic)

    def change(self, state: str, text: str, *, level: int = logging.INFO) -> None:
        """Note and tell a state, unless it is what was told last."""
        if (state, text) == (self.state, self.text):
            return
        self.state, self.text = state, text
        self._note_link(up=state in _NEEDS_LINK)
        log.log(level, "%s", text, extra=self._fields())
        with contextlib.suppress(OSError):  # a full disk must not end the round
            write_json_atomic(self.path, self._document(state))

    def _note_link(self, *, up: bool) -> None:
        if up != self.link_up:
            self.link_up, self.connection_since = up, _now()

    def _document(self, state: str) -> dict[str, Any]:
        return {
            "state": state,
            "text": self.text,
            "time": time.time(),
            "site": self.site,
            "coordinator": self.address,
            "connected": self.link_up,
            "connection_since": self.connection_since,
            "last_task": self.last_task,
            "last_round": self.last_round,
            "pid": os.getpid(),
            **({"fails_on_purpose": self.faults} if self.faults else {}),
        }

    def _fields(self) -> dict[str, Any]:
        return {"site": self.site} | ({"round": self.last_round} if self.last_round else {})

    def on_event(self, event: Event) -> None:
        """Follow what the children tell."""
        if event.kind == "connected":
            self._note_link(up=True)
            again = "reconnected" if self.was_connected else "connected"
            self.was_connected = True
            now = f"{self.task} goes on" if self.task else "waiting for a round"
            self._tell("working" if self.task else "waiting", f"{again} to {self.address}; {now}")
        elif event.kind == "lost":
            self.change("lost", f"lost the coordinator {self.address}: {event.text}; trying again")
        elif event.kind == "run-ended":
            self.task = ""
            self.change("connecting", "the run has ended at the coordinator: its task is dropped")
        elif event.kind == "lease":
            self.change("connecting", event.text)
        elif event.kind == "refused":
            self._tell("refused", f"refused a run: {event.text}", level=logging.ERROR)
        elif event.kind == "task":
            self.task_since = time.monotonic()
            self.task = _task_text(event)
            self.last_task, self.last_round = self.task, event.values.get("round")
            self._tell("working", self.task)
        elif event.kind == "task-ended":
            self.task = ""
            seconds = time.monotonic() - self.task_since
            how = f"done in {seconds:.1f} s"
            if event.values.get("code"):
                how = f"DIED after {seconds:.1f} s ({describe_exit(int(event.values['code']))})"
            waiting = "waiting" if self.link_up else "waiting for the coordinator"
            self._tell("waiting", f"{_task_text(event)}: {how}; {waiting}")

    def worker_ended(self, how: str) -> None:
        """Note that the worker died, and its task with it."""
        self.task = ""
        self._tell("waiting", f"the worker ended ({how}); starting it again", level=logging.WARNING)

    def _tell(self, state: str, text: str, *, level: int = logging.INFO) -> None:
        """Tell what the site does; while the coordinator is away, the state says that alone."""
        self.change(state if self.link_up else self.state or "connecting", text, level=level)


def _task_text(event: Event) -> str:
    task = str(event.values.get("task", ""))
    kind = task.split(".", maxsplit=1)[0]
    name, number = _TASKS.get(task, _TASKS.get(kind, kind)), event.values.get("round")
    return f"{name}, round {number}" if number and kind != "query" else name


def observe_site(state: Path) -> dict[str, Any]:
    """Tell what a site's client does now, from outside, as JSON values.

    A file that says "connected" of a process that is gone tells nothing of now.
    """
    try:
        found = json.loads((state / STATUS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"state": "none", "text": "no client was started yet", "connected": False}
    if not isinstance(found, dict):
        return {"state": "none", "text": "the status file is damaged", "connected": False}
    pid = holder_of(state)
    if pid is None or pid != found.get("pid"):
        found["connected"] = False
        if found.get("state") not in {"stopped", "ended"}:
            text = f"its process died while it said: {found.get('text')}"
            found |= {"state": "died", "text": text}
    return found
