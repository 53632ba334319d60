"""A site's part in secure sums on disk, `state/secure/<run>/`: the session under way, what is done.

The ClientApp keeps nothing in memory between messages. Before anything goes out, the state it needs
to go on after a crash is on disk (0600); it holds secrets only until the round's last step, and a
new session puts it away. `done.json` stays: sessions that began, those in which a noised update was
given and with which noise multiplier, and whom the site agreed to be in each round's sum, so that
no second sum of a round is made of other sites.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nognet.errors import PrivacyError, WireError
from nognet.files import write_text_atomic
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.secagg.session import Session
from nognet.secagg.site_state import SiteState, from_text, to_text


class MaskingState:
    """What a site keeps of one run's secure sums."""

    def __init__(self, state_folder: Path, run_token: str) -> None:
        self.folder = state_folder / "secure" / run_token

    @classmethod
    def all_of(cls, state_folder: Path) -> Iterator[MaskingState]:
        """Give those of all runs that this site took part in."""
        runs = state_folder / "secure"
        for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
            if folder.is_dir():  # a file manager leaves files of its own
                yield cls(state_folder, folder.name)

    @property
    def _session(self) -> Path:
        return self.folder / "session.json"

    @property
    def _done(self) -> Path:
        return self.folder / "done.json"

    def find(self, session: Session) -> SiteState | None:
        """Read the state of a session; None if it is not the one under way.

        Raises:
            WireError: what was kept is damaged.
        """
        try:
            state = from_text(self._session.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as err:
            raise _damaged(self._session) from err
        return state if state.session == session else None

    def begin(self, state: SiteState) -> None:
        """Keep a new session's state, in place of any other's.

        Raises:
            PrivacyError: a session of that name began before.
            OSError: the folder can't be written.
        """
        done = self._read_done()
        nonce = state.session.nonce
        if nonce in done["sessions"]:
            raise PrivacyError(
                "the coordinator begins a session of a secure sum a second time; each needs new "
                "keys and a new name",
                code="secure-replay",
            )
        done["sessions"][nonce] = state.session.round_number
        self._write_done(done)
        self.keep(state)

    def keep(self, state: SiteState) -> None:
        """Keep the state of the session under way, before what it made goes out.

        Raises:
            OSError: the folder can't be written.
        """
        write_text_atomic(self._session, to_text(state), mode=0o600)

    def agree(self, state: SiteState) -> None:
        """Note whom the site agrees to be in the round's sum, once for ever, and keep the state.

        Two sums of one round that differ by one site would uncover that site's update.

        Raises:
            PrivacyError: it agreed to other sites before, in another session of the round.
            OSError: the folder can't be written.
        """
        done, number = self._read_done(), str(state.session.round_number)
        before = done["agreed"].setdefault(number, list(state.survivors))
        if before != list(state.survivors):
            raise PrivacyError(
                f"round {number} had a secure sum of {len(before)} sites; a second one of "
                f"{len(state.survivors)} others would uncover by difference what the first hid. "
                "Let the same sites take part",
                code="secure-other-survivors",
            )
        self._write_done(done)
        self.keep(state)

    def noised(self) -> Mapping[str, float]:
        """Name the sessions of the run in which a noised update was given, and its multiplier.

        Raises:
            WireError: what was kept is damaged.
        """
        return dict(self._read_done()["noised"])

    def noised_elsewhere(self, session: Session) -> PrivacyHistory:
        """List what this site gave in all other sessions, of all runs: a coordinator names runs.

        Raises:
            WireError: what was kept of a run is damaged.
        """
        given = PrivacyHistory()
        for multiplier in self._multipliers(session):
            given = given.then(NoisedSteps(multiplier, 1.0, 1))
        return given

    def note_noised(self, session: Session, noise_multiplier: float) -> int:
        """Note that a session's noised update is given; count those of the run.

        Raises:
            OSError: the folder can't be written.
        """
        done = self._read_done()
        if session.nonce not in done["noised"]:
            done["noised"][session.nonce] = noise_multiplier
            self._write_done(done)
        return len(done["noised"])

    def _multipliers(self, session: Session) -> Iterator[float]:
        for run in MaskingState.all_of(self.folder.parent.parent):
            for nonce, multiplier in run.noised().items():
                if (run.folder, nonce) != (self.folder, session.nonce):
                    yield multiplier

    def _read_done(self) -> dict[str, Any]:
        try:
            found = json.loads(self._done.read_text(encoding="utf-8"))
            noised = dict(found.get("noised", {}))  # absent in earlier files
            return {
                "sessions": dict(found["sessions"]),
                "agreed": dict(found["agreed"]),
                "noised": {nonce: float(noise) for nonce, noise in noised.items()},
            }
        except FileNotFoundError:
            return {"sessions": {}, "agreed": {}, "noised": {}}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
            raise _damaged(self._done) from err

    def _write_done(self, done: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text_atomic(self._done, json.dumps(done, sort_keys=True), mode=0o600)


def _damaged(path: Path) -> WireError:
    return WireError(
        f"{path}: not what this site kept of its secure sums, or damaged; the site sits the run "
        "out. Restore it from a backup, or let the coordinator start a new run",
        code="secure-state",
    )
