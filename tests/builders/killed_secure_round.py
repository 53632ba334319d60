"""Kill a site's process (SIGKILL) at one moment of a private round in a secure sum, then go on.

One of three sites is killed at a step and asked again, by a process that was just started; the
other two live. A program of its own, as `killed_round`:

    python -m tests.builders.killed_secure_round FOLDER  ->  a line of JSON a moment
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nognet_client.masking.state import MaskingState
from nognet_client.reply_cache import ReplyCache
from nognet_client.tasks import Work

from nognet.errors import NognetError
from nognet.fit.budget import ledger_of
from nognet.privacy.dp_sgd import PrivateSteps
from nognet.privacy.ledger import Ledger
from nognet.secagg import site_side
from nognet.wire.records import Rows
from tests.builders.killed_round import STEPS, _in_child, _kill_at_call, _wrap
from tests.builders.masking import NAMES, Three
from tests.builders.private_work import private_work

KILLED, OTHERS = NAMES[0], NAMES[1:]
ANSWERED = "answered"
MOMENTS: dict[str, tuple[str, Any, str, str, int]] = {
    "the session noted, no keys kept": ("keys", MaskingState, "keep", "before", 1),
    "keys kept": ("keys", MaskingState, "begin", "after", 1),
    "keys made, not sent": ("keys", None, ANSWERED, "after", 1),
    "shares made, not kept": ("shares", MaskingState, "keep", "before", 1),
    "shares made, not sent": ("shares", None, ANSWERED, "after", 1),
    "before the charge": ("train", Ledger, "charge", "before", 1),
    "charged": ("train", Ledger, "charge", "after", 1),
    "in the middle of training": ("train", PrivateSteps, "noised_gradient", "after", 2),
    "trained, the reply not kept": ("train", ReplyCache, "keep", "before", 1),
    "the reply kept, not masked": ("train", site_side, "mask", "before", 1),
    "masked, not kept": ("train", MaskingState, "keep", "before", 1),
    "masked, not sent": ("train", None, ANSWERED, "after", 1),
    "agreed, not noted": ("agree", MaskingState, "agree", "before", 1),
    "agreed, not sent": ("agree", None, ANSWERED, "after", 1),
    "revealed, not kept": ("reveal", MaskingState, "keep", "before", 1),
    "revealed, not sent": ("reveal", None, ANSWERED, "after", 1),
}
"""At which step it is killed: around the n-th call of a function, or with its answer made."""


class Round:
    """A round of three sites, of which one answers in processes of its own."""

    def __init__(self, folder: Path, moment: str) -> None:
        """Write the sites."""
        training = {"steps_per_round": STEPS, "batch_size": 2, "warmup_steps": 0}
        privacy = {"noise_multiplier": 2.0, "delta": 1e-2}
        self.three = Three(folder, rounds=1, training=training, privacy=privacy)
        self.three.work = private_work()
        self.folder, self.moment = folder, moment
        self.log = folder / "log"
        self.log.touch()
        self.told: dict[str, Any] = {"moment": moment, "refused": None}

    def answer(self, step: str, ask: Callable[[], Any]) -> Any:
        """Let the site answer a step, a second time where it was killed; give the last answer."""
        at, owner, name, when, number = MOMENTS[self.moment]
        tries = ("killed", "again", "once more") if at == step else ("again",)
        for attempt in tries:
            path = self.folder / f"{step}-{attempt}.json"

            def work(path: Path = path, attempt: str = attempt) -> None:
                _wrap(PrivateSteps, "noised_gradient", self._note_step, lambda: None)
                if attempt == "killed" and owner is not None:
                    kill = _kill_at_call(number)
                    edges = (kill, _nothing) if when == "before" else (_nothing, kill)
                    _wrap(owner, name, *edges)
                try:
                    path.write_text(json.dumps(ask(), default=_hex))
                except NognetError as err:  # a refusal; anything else ends the child, and the test
                    path.write_text(json.dumps({"error": str(err)}))
                if attempt == "killed" and owner is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            ended = _in_child(work)
            if attempt == "killed":
                self.told |= {"ended": ended, "after_kill": self.account()}
                self.told["first"] = path.read_text() if path.exists() else None
            elif at == step:
                self.told.setdefault("second", path.read_text())
                self.told["third"] = path.read_text()
        found = json.loads(path.read_text())
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def account(self) -> dict[str, int]:
        """Count steps that were charged, and those that were taken."""
        entries = ledger_of(self.three.site(KILLED).config).entries()
        taken = self.log.read_text().count("step")
        return {"charged": sum(entry.steps.steps for entry in entries), "taken": taken}

    def play(self) -> dict[str, Any]:
        """Play the round to its end, or to where the site refuses."""
        three = self.three
        try:
            keys = {n: three.step(n, "keys", {})[n] for n in OTHERS}
            keys[KILLED] = self._step("keys", {})[KILLED]
            shares = {n: three.step(n, "shares", keys) for n in OTHERS}
            shares[KILLED] = self._step("shares", keys)
            for name in OTHERS:
                three.train(name, three.for_site(name, shares))
            self.answer("train", lambda: self._masked(three.for_site(KILLED, shares)))
            survivors: Rows = {name: {} for name in NAMES}
            signed = {n: three.step(n, "agree", survivors)[n] for n in OTHERS}
            signed[KILLED] = self._step("agree", survivors)[KILLED]
            self._step("reveal", signed)
            for name in OTHERS:
                three.step(name, "reveal", signed)
        except RuntimeError as err:
            self.told["refused"] = str(err)
        return {**self.told, "at_the_end": self.account()}

    def _step(self, step: Any, rows: Rows) -> Rows:
        found = self.answer(step, lambda: self.three.step(KILLED, step, rows))
        return {site: {k: bytes.fromhex(v) for k, v in row.items()} for site, row in found.items()}

    def _masked(self, rows: Rows) -> Any:
        self.three.work = Work()  # in the child alone: it trains in earnest
        reply = self.three.train(KILLED, rows).reply
        words = hashlib.sha256(reply.words.tobytes()).hexdigest()
        return {**{k: v for k, v in asdict(reply).items() if k != "words"}, "words": words}

    def _note_step(self) -> None:
        with self.log.open("a") as file:
            file.write("step\n")
            file.flush()
            os.fsync(file.fileno())


def _nothing() -> None:
    """Nobody is killed here."""


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    for place, chosen in enumerate(MOMENTS):
        played = Round(Path(sys.argv[1]) / str(place), chosen).play()
        sys.stdout.write(json.dumps(played) + "\n")
        sys.stdout.flush()
