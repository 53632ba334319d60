"""Evaluation: global weights out, a site's mergeable statistics back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from nognet.errors import WireError
from nognet.types import Split
from nognet.wire import fields
from nognet.wire.flat import FlatWeights
from nognet.wire.records.parts import (
    ARRAYS,
    CONFIG,
    METRICS,
    ROUND_KEY,
    STATISTICS,
    WEIGHTS,
    config_of,
    expect_records,
    metrics_record,
    numbers_of,
    vectors_of,
    weights_record,
)


@dataclass(frozen=True)
class EvaluateTask:
    """Evaluate these weights on one split of the site's own patients."""

    round_number: int
    split: Split
    study_json: str
    contract_hash: str
    run_token: str
    weights: FlatWeights = field(repr=False)

    def to_content(self) -> RecordDict:
        """Write the message's content."""
        config = ConfigRecord(
            {
                ROUND_KEY: self.round_number,
                "split": self.split,
                "study": self.study_json,
                "contract-hash": self.contract_hash,
                "run": self.run_token,
            }
        )
        return RecordDict({ARRAYS: weights_record(self.weights), CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict) -> EvaluateTask:
        """Read and check a received content; the site knows the length from the contract.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range.
        """
        expect_records(content, {ARRAYS, CONFIG})
        config = config_of(content, {ROUND_KEY, "split", "study", "contract-hash", "run"})
        return cls(
            round_number=fields.round_number(config, ROUND_KEY),
            split=fields.split_name(config),
            study_json=fields.text(config, "study"),
            contract_hash=fields.text(config, "contract-hash", fields.TOKEN),
            run_token=fields.text(config, "run", fields.TOKEN),
            weights=vectors_of(content, {WEIGHTS}, None)[WEIGHTS],
        )


@dataclass(frozen=True)
class EvaluateReply:
    """A site's statistics of one split, flat as `SiteStatistics.to_flat` gives them."""

    site: str
    round_number: int
    split: Split
    statistics: Mapping[str, float]
    seconds: float

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        return RecordDict(
            {
                STATISTICS: metrics_record(self.statistics),
                METRICS: MetricRecord({"seconds": self.seconds}),
                CONFIG: ConfigRecord(
                    {"site": self.site, ROUND_KEY: self.round_number, "split": self.split}
                ),
            }
        )

    @classmethod
    def from_content(cls, content: RecordDict) -> EvaluateReply:
        """Read and check a received content; the statistics' keys are checked by `from_flat`.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or not finite.
        """
        expect_records(content, {STATISTICS, METRICS, CONFIG})
        config = config_of(content, {"site", ROUND_KEY, "split"})
        numbers = numbers_of(content, {"seconds"})
        statistics = fields.numbers(content.metric_records[STATISTICS])
        if not statistics:
            raise WireError("found no statistics, expected some", code="no-examples")
        return cls(
            site=fields.text(config, "site", fields.SITE_NAME),
            round_number=fields.round_number(config, ROUND_KEY),
            split=fields.split_name(config),
            statistics=statistics,
            seconds=fields.number(numbers, "seconds", 0.0),
        )
