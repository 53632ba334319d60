"""What a ServerApp is told through Flower's run config; only texts, numbers and truth values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import UserConfigValue

from nognet.config import StudyConfig, parse_study_json
from nognet.errors import ConfigError

SERVER_APP = "nognet_server.app:app"
CLIENT_APP = "nognet_client.app:app"

DEFAULTS: dict[str, UserConfigValue] = {
    "study-json": "",
    "run-folder": "",
    "resume": False,
    "closed-roster": 0,
    "lost-after-s": 120.0,
    "poll-s": 0.2,
}
"""The keys of the bundle's config: Flower refuses to override one that isn't there."""


@dataclass(frozen=True)
class RunSettings:
    """One run of one study in one run folder.

    Attributes:
        study: What to run.
        run_folder: Where everything of the run is written.
        resume: Go on after the folder's last checkpoint.
        closed_roster: Simulation: exactly so many sites exist, none other will come. 0: sites come
            and go.
        lost_after_s: A site that is offline for so long in a round is given up for the round.
        poll_s: Pause between looks for replies.
    """

    study: StudyConfig
    run_folder: Path
    resume: bool = False
    closed_roster: int = 0
    lost_after_s: float = 120.0
    poll_s: float = 0.2

    def to_run_config(self) -> dict[str, UserConfigValue]:
        """Write the run config."""
        return {
            "study-json": self.study.for_sites(),
            "run-folder": str(self.run_folder.resolve()),
            "resume": self.resume,
            "closed-roster": self.closed_roster,
            "lost-after-s": self.lost_after_s,
            "poll-s": self.poll_s,
        }

    @classmethod
    def from_run_config(cls, values: Mapping[str, UserConfigValue]) -> RunSettings:
        """Read the run config.

        Raises:
            ConfigError: a key is missing or the study is faulty.
        """
        given = {**DEFAULTS, **values}
        if not given["study-json"] or not given["run-folder"]:
            raise ConfigError(
                "the run config lacks 'study-json' or 'run-folder'; start runs with nognet-server "
                "or nognet-sim"
            )
        return cls(
            study=parse_study_json(str(given["study-json"])),
            run_folder=Path(str(given["run-folder"])),
            resume=bool(given["resume"]),
            closed_roster=int(given["closed-roster"]),
            lost_after_s=float(given["lost-after-s"]),
            poll_s=float(given["poll-s"]),
        )
