"""Kill a site's process (SIGKILL) at one moment of a private round, then let another go on.

A program of its own: it imports torch and Opacus once and forks a process for each try.

    python -m tests.builders.killed_round FOLDER  ->  a line of JSON a moment
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nognet_client.reply_cache import ReplyCache
from nognet_client.tasks import Site, Work, train

from nognet.config import StudyConfig
from nognet.fit.budget import ledger_of
from nognet.fit.weights import initial_weights, weight_spec
from nognet.privacy.dp_sgd import PrivateSteps
from nognet.privacy.ledger import Ledger
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import TrainTask
from tests.builders.federation import make_site, make_study, opened

STEPS = 3
MOMENTS: dict[str, tuple[type, str, str, int]] = {
    "before the charge": (Ledger, "charge", "before", 1),
    "charged": (Ledger, "charge", "after", 1),
    "in the middle of training": (PrivateSteps, "noised_gradient", "after", 2),
    "trained, not confirmed": (Ledger, "confirm", "before", 1),
    "trained, the reply not kept": (ReplyCache, "keep", "before", 1),
    "the reply kept, not sent": (ReplyCache, "keep", "after", 1),
}
"""Where the process is killed: around the n-th call of a method."""


def _wrap(owner: type, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    usual = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        before()
        result = usual(*arguments, **named)
        after()
        return result

    setattr(owner, name, wrapped)


def _kill_at_call(number: int) -> Callable[[], None]:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def _in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; give its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        work()
        sys.stdout.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _train(site: Site, study: StudyConfig, log: Path) -> None:
    """Do the round's task; a line in `log` for every noised step, another for the reply."""

    def note(word: str) -> None:
        with log.open("a") as file:
            file.write(word + "\n")
            file.flush()
            os.fsync(file.fileno())

    _wrap(PrivateSteps, "noised_gradient", lambda: note("step"), lambda: None)
    weights = pack(initial_weights(study.network, study.seed), weight_spec(study.network))
    digest = contract_hash(contract(study))
    reply = train(TrainTask(1, study.for_sites(), digest, "ab" * 16, weights), site, Work())
    note(f"replied {reply.epsilon}")


def killed_and_done_again(folder: Path, moment: str) -> dict[str, Any]:
    """Kill a round at a moment, do it again; tell what the ledger and the log say of both."""
    training = {"steps_per_round": STEPS, "batch_size": 2, "warmup_steps": 0}
    privacy = {"noise_multiplier": 2.0, "delta": 1e-2}
    study = make_study(folder, training=training, privacy=privacy)
    site, log = Site(*opened(make_site(folder, "site_a"))), folder / "log"
    owner, name, when, number = MOMENTS[moment]

    def first_try() -> None:
        kill = _kill_at_call(number)
        before, after = (kill, lambda: None) if when == "before" else (lambda: None, kill)
        _wrap(owner, name, before, after)
        _train(site, study, log)

    log.touch()
    ended = _in_child(first_try)
    told = {"moment": moment, "ended": ended}
    for attempt in ("killed", "done"):
        words = log.read_text().splitlines()
        entries = ledger_of(site.config).entries()
        told[attempt] = {
            "states": [entry.state for entry in entries],
            "charged": sum(entry.steps.steps for entry in entries),
            "epsilon": entries[-1].epsilon_after if entries else None,
            "taken": words.count("step"),
            "replies": [word for word in words if word.startswith("replied")],
        }
        if attempt == "killed":
            told["ended_again"] = _in_child(lambda: _train(site, study, log))
    return told


if __name__ == "__main__":
    for place, chosen in enumerate(MOMENTS):
        sys.stdout.write(
            json.dumps(killed_and_done_again(Path(sys.argv[1]) / str(place), chosen)) + "\n"
        )
        sys.stdout.flush()
