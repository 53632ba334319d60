"""What a site has done for each study, on disk: rounds, evaluations, noised steps.

Under the study's name, whatever the run: a coordinator that starts a study anew under other run
tokens finds the count where it was. A task is counted before it is worked on, so a crash never
forgets one; the one counted last may come again without counting twice if it died half way. Once it
is done its reply is kept, and to do it anew, with other noise, is another one. A run's entry
has the one task in which the site made its own model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nognet.audit.log import egress_folder
from nognet.errors import ConsentError, PrivacyError
from nognet.files import held, write_text_atomic
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet_client.egress.room import with_room

Kind = Literal["rounds", "evaluations"]
_VERSION = 2
_READABLE = (1, 2)
"""In version 1 of the record a run was the digest of its study alone."""
_KEPT_RUNS = 64


@dataclass(frozen=True)
class Served:
    """What was done for one study, all its runs together.

    Attributes:
        rounds: Rounds of training that were begun.
        evaluations: Evaluations that were begun.
        noised: Steps of these rounds under differential privacy.
        last: Kind -> digest of the task of that kind that was counted last, until it is done.
    """

    rounds: int = 0
    evaluations: int = 0
    noised: PrivacyHistory = field(default_factory=PrivacyHistory)
    last: Mapping[str, str] = field(default_factory=dict)

    def is_counted(self, kind: Kind, digest: str) -> bool:
        """Tell whether this very task is the one that was counted last, and was never done."""
        return self.last.get(kind) == digest

    def then(self, kind: Kind, digest: str, noised: NoisedSteps | None) -> Served:
        """Count a task."""
        more = {kind: getattr(self, kind) + 1}
        history = self.noised if noised is None else self.noised.then(noised)
        return replace(self, **more, noised=history, last={**self.last, kind: digest})

    def done(self, kind: Kind) -> Served:
        """Note that the task counted last came to its end."""
        last = {name: digest for name, digest in self.last.items() if name != kind}
        return replace(self, last=last)


@dataclass(frozen=True)
class Run:
    """What a run began with.

    Attributes:
        digest: Of its study.
        release: Of nognet at the coordinator, as it said when it last asked the site to join; None
            where it never did.
        personalised: Digest of the one task in which the site makes its own model; None before it.
    """

    digest: str
    release: str | None = None
    personalised: str | None = None


@dataclass(frozen=True)
class Book:
    """The whole record: study name -> what was done, run token -> what the run began with."""

    studies: Mapping[str, Served] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)

    def of(self, study: str) -> Served:
        """What was done for a study."""
        return self.studies.get(study, Served())


class ServedRecord:
    """The record's file in a site's state folder, `consent/served.json`."""

    def __init__(self, state_folder: Path) -> None:
        self.path = state_folder / "consent" / "served.json"
        self._room = egress_folder(state_folder)

    def read(self) -> Book:
        """Read the record; empty where nothing was done yet.

        Raises:
            ConsentError: it is damaged or can't be read. It is never read as "nothing done".
        """
        try:
            return _book(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Book()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, PrivacyError) as err:
            raise ConsentError(
                f"{self.path}: the record of what was done for each study can't be read "
                f"({type(err).__name__}); restore it from a backup, or, if the hospital agrees "
                "that all counts begin anew, remove it",
                code="consent-record",
            ) from err

    def change(self, step: Callable[[Book], Book]) -> Book:
        """Replace the record by what `step` makes of it, as one act among processes.

        Raises:
            ConsentError: as `read`; or it can't be written; or what `step` raises.
        """
        try:
            with held(self.path.parent / ".lock"):
                before = self.read()
                after = step(before)
                if after != before:
                    with_room(self._room, lambda: self._write(after))
                return after
        except OSError as err:
            raise ConsentError(
                f"{self.path}: what is done for a study can't be recorded ({err.strerror}); "
                "nothing was done: 'state' in site.yaml has to name a folder that may be written",
                code="consent-record",
            ) from err

    def _write(self, book: Book) -> None:
        write_text_atomic(self.path, _text(book), mode=0o600)


def with_run(book: Book, token: str, run: Run, *, on_disk: Collection[str] = ()) -> Book:
    """Note a run, its study and its coordinator's release.

    The last runs are kept, and all of which the site has something on disk: that was made for this
    study, and is given for no other.
    """
    others = {name: known for name, known in book.runs.items() if name != token}
    forgotten = [name for name in others if name not in on_disk][: -(_KEPT_RUNS - 1)]
    kept = {name: known for name, known in others.items() if name not in forgotten}
    return replace(book, runs={**kept, token: run})


def runs_on_disk(state_folder: Path) -> frozenset[str]:
    """Name the runs of which the site keeps weights, or a part in a secure sum."""
    folders = (state_folder / "personal", state_folder / "secure")
    return frozenset(path.name for folder in folders for path in folder.glob("*"))


def _text(book: Book) -> str:
    content = {
        "version": _VERSION,
        "studies": {
            name: {
                "rounds": served.rounds,
                "evaluations": served.evaluations,
                "noised": [asdict(steps) for steps in served.noised.entries],
                "last": dict(served.last),
            }
            for name, served in sorted(book.studies.items())
        },
        "runs": {token: asdict(run) for token, run in book.runs.items()},
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _book(content: Mapping[str, Any]) -> Book:
    if content["version"] not in _READABLE:
        raise ValueError("another version")
    studies = {str(name): _served(entry) for name, entry in content["studies"].items()}
    return Book(studies, {str(token): _run(entry) for token, entry in content["runs"].items()})


def _run(entry: str | Mapping[str, Any]) -> Run:
    if isinstance(entry, str):
        return Run(entry)
    release, personalised = entry["release"], entry.get("personalised")  # an earlier record: none
    return Run(
        str(entry["digest"]),
        None if release is None else str(release),
        None if personalised is None else str(personalised),
    )


def _served(entry: Mapping[str, Any]) -> Served:
    rounds, evaluations = entry["rounds"], entry["evaluations"]
    if not all(type(count) is int and count >= 0 for count in (rounds, evaluations)):
        raise ValueError("a count that is none")
    noised = PrivacyHistory(tuple(NoisedSteps(**steps) for steps in entry["noised"]))
    return Served(rounds, evaluations, noised, {str(k): str(v) for k, v in entry["last"].items()})
