"""What a message may hold: its form, made from task, study and site, never from the message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nognet.metrics.withholding import Limits
from nognet.wire.records import ARRAYS, CONFIG, METRICS, STATISTICS


@dataclass(frozen=True)
class VectorForm:
    """A flat vector: its length and dtype, as NumPy names it; floats are finite."""

    length: int
    dtype: str = "float32"


@dataclass(frozen=True)
class NumberForm:
    """A number from `low` to `high`, both finite; `whole`: an integer; one of `values`, if any."""

    low: float
    high: float
    whole: bool = False
    values: frozenset[float] | None = None

    @classmethod
    def only(cls, count: int) -> NumberForm:
        """One count and no other."""
        return cls(count, count, whole=True)

    @classmethod
    def among(cls, values: Iterable[float]) -> NumberForm:
        """One of these numbers, of which there is at least one."""
        known = frozenset(values)
        return cls(min(known), max(known), values=known)


@dataclass(frozen=True)
class StatisticsForm:
    """Mergeable statistics of these predictors, of which this may leave."""

    predictors: frozenset[str]
    limits: Limits


@dataclass(frozen=True)
class Form:
    """All that a message holds, no more and no less; each text has one value that it may have."""

    texts: Mapping[str, str | int | bool]
    vectors: Mapping[str, VectorForm] = field(default_factory=dict)
    numbers: Mapping[str, NumberForm] = field(default_factory=dict)
    statistics: StatisticsForm | None = None

    @property
    def records(self) -> set[str]:
        """Names of the records."""
        wanted = {
            ARRAYS: bool(self.vectors),
            METRICS: bool(self.numbers),
            STATISTICS: self.statistics is not None,
        }
        return {CONFIG} | {name for name, is_wanted in wanted.items() if is_wanted}
