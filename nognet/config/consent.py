"""`site.yaml`'s ``consent``: which studies a site takes part in, and how far."""

from __future__ import annotations

import re
from datetime import date, time
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from nognet.config.base import DEFAULT_MAX_DELTA, ConfigModel, Name
from nognet.config.learning import MetricName

LOSS = "loss"
LeavingFigure = MetricName | Literal["loss"]
"""A metric of the evaluation, or the mean loss of a round's training."""
Digest = Annotated[
    str,
    Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, 64 hexadecimal digits."),
]
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class AcceptedStudy(ConfigModel):
    """A study that the site agreed to; `sha256` holds it to one wording."""

    name: Name
    sha256: Digest | None = None
    """Of the study as sites see it; `nognet-client --forecast study.yaml` prints it. Any change of
    the study gives another."""


class ConsentConfig(ConfigModel):
    """What the site accepts; what is left out is not limited. The client's log says what to set."""

    studies: tuple[AcceptedStudy, ...] | None = Field(default=None, min_length=1)
    """Studies by name, with or without its digest; any study where this is left out."""
    releases: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Releases of nognet that may work on this site's data, such as `0.4.0`."""
    protocol: int | None = Field(default=None, ge=1)
    """Version of the messages between site and coordinator."""
    contract_hash: Digest | None = None
    """Of the contract: what all numbers mean, and which parameters travel."""
    max_rounds: int | None = Field(default=None, ge=1)
    """Rounds of training of a study, all its runs together, and of what a study may ask for."""
    max_evaluations: int | None = Field(default=None, ge=1)
    """Evaluations of a study, all its runs together; by default twice `max_rounds` and 10."""
    max_epsilon: float | None = Field(default=None, gt=0)
    """Epsilon of a whole study, all its runs together; a study without privacy has none to offer
    and is declined."""
    max_delta: float = Field(default=DEFAULT_MAX_DELTA, gt=0, lt=0.5)
    """The delta at which `max_epsilon` holds, or the study's where that is smaller: a study of a
    larger delta isn't declined for it, but its epsilon is computed at this one."""
    require_privacy: bool = False
    """Decline what trains without differential privacy, be it the study's or the site's own. Wants
    `max_epsilon` beside it, or the site's own `privacy`: a study may ask for as little noise as it
    likes."""
    min_batch_size: int | None = Field(default=None, ge=1)
    """Least `training.batch_size`: samples (under privacy: patients) that a step averages over."""
    max_steps_per_round: int | None = Field(default=None, ge=1)
    """Most `training.steps_per_round`."""
    metrics: tuple[LeavingFigure, ...] | None = None
    """Figures that may leave; others are withheld, `[]` withholds all."""
    hours: str | None = None
    """When rounds of training may begin, such as `"19:00-06:00"`; joining and evaluating are short
    and done at any time."""
    timezone: str | None = None
    """Of `hours` and `expires`, such as `Europe/Berlin`; by default the machine's own."""
    expires: date | None = None
    """The last day of this consent."""

    @field_validator("studies", mode="before")
    @classmethod
    def _study_may_be_a_name(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        return [{"name": item} if isinstance(item, str) else item for item in value]

    @field_validator("hours")
    @classmethod
    def _hours_are_times(cls, value: str | None) -> str | None:
        if value is not None and not _HOURS.fullmatch(value):
            raise ValueError('expected two times of day such as "19:00-06:00"')
        if value is not None and len(set(value.split("-"))) == 1:
            raise ValueError("begin and end are the same; leave hours out to train at any time")
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError) as err:
                raise ValueError(
                    "not a time zone that this machine knows, such as Europe/Berlin"
                ) from err
        return value

    @model_validator(mode="after")
    def _a_name_comes_once(self) -> ConsentConfig:
        names = [study.name for study in self.studies or ()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"studies name '{twice[0]}' twice")
        return self

    @model_validator(mode="after")
    def _a_delta_is_of_an_epsilon(self) -> ConsentConfig:
        if self.max_epsilon is None and self.max_delta != DEFAULT_MAX_DELTA:
            raise ValueError(
                "max_delta limits nothing by itself, it is where max_epsilon is computed; add "
                "max_epsilon, or leave max_delta out"
            )
        return self

    @property
    def open_hours(self) -> tuple[time, time] | None:
        """Begin and end of `hours`; the end may lie on the next day."""
        if self.hours is None:
            return None
        begin, end = (time.fromisoformat(part) for part in self.hours.split("-"))
        return begin, end

    @property
    def evaluations_allowed(self) -> int | None:
        """`max_evaluations`, or what goes with `max_rounds`; None: any number."""
        if self.max_evaluations is not None or self.max_rounds is None:
            return self.max_evaluations
        return 2 * self.max_rounds + 10

    def accepts(self, study: str) -> AcceptedStudy | None:
        """Find a study among those accepted."""
        return next((known for known in self.studies or () if known.name == study), None)

    def lets_out(self, figure: str) -> bool:
        """Tell whether a figure may leave."""
        return self.metrics is None or figure in self.metrics
