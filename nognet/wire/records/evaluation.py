"""Evaluation: weights out, a site's mergeable statistics back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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

MODEL_OF, PERSONALISE = "model-of", "personalise"


@dataclass(frozen=True)
class EvaluateTask:
    """Evaluate these weights on one split of the site's own patients.

    Attributes:
        round_number: Whose weights they are.
        split: Of the site's patients.
        study_json: The study.
        contract_hash: Of the contract.
        run_token: The run.
        weights: Those that are shared by all sites; of another site's model, all.
        personalise: The last evaluation of a run: the site makes its own model of these weights
            too, as the study says, and evaluates it beside them.
        model_of: The site whose model it is that visits; None for the global weights.
    """

    round_number: int
    split: Split
    study_json: str
    contract_hash: str
    run_token: str
    weights: FlatWeights = field(repr=False)
    personalise: bool = False
    model_of: str | None = None

    def to_content(self) -> RecordDict:
        """Write the message's content."""
        config = ConfigRecord(
            {
                ROUND_KEY: self.round_number,
                "split": self.split,
                "study": self.study_json,
                "contract-hash": self.contract_hash,
                "run": self.run_token,
                PERSONALISE: self.personalise,
                **_named(self.model_of),
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
        keys = {ROUND_KEY, "split", "study", "contract-hash", "run", PERSONALISE}
        config = config_of(content, keys, optional={MODEL_OF})
        return cls(
            round_number=fields.round_number(config, ROUND_KEY),
            split=fields.split_name(config),
            study_json=fields.text(config, "study"),
            contract_hash=fields.text(config, "contract-hash", fields.TOKEN),
            run_token=fields.text(config, "run", fields.TOKEN),
            weights=vectors_of(content, {WEIGHTS}, None)[WEIGHTS],
            personalise=fields.flag(config, PERSONALISE),
            model_of=_name(config),
        )


@dataclass(frozen=True)
class EvaluateReply:
    """A site's statistics of one split, flat as `SiteStatistics.to_flat` gives them.

    `model_of` names the site whose model visited; None where it was the global one.
    """

    site: str
    round_number: int
    split: Split
    statistics: Mapping[str, float]
    seconds: float
    model_of: str | None = None

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        config = ConfigRecord(
            {
                "site": self.site,
                ROUND_KEY: self.round_number,
                "split": self.split,
                **_named(self.model_of),
            }
        )
        return RecordDict(
            {
                STATISTICS: metrics_record(self.statistics),
                METRICS: MetricRecord({"seconds": self.seconds}),
                CONFIG: config,
            }
        )

    @classmethod
    def from_content(cls, content: RecordDict) -> EvaluateReply:
        """Read and check a received content; the statistics' keys are checked by `from_flat`.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or not finite.
        """
        expect_records(content, {STATISTICS, METRICS, CONFIG})
        config = config_of(content, {"site", ROUND_KEY, "split"}, optional={MODEL_OF})
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
            model_of=_name(config),
        )


def _named(model_of: str | None) -> dict[str, str]:
    return {} if model_of is None else {MODEL_OF: model_of}


def _name(config: Mapping[str, Any]) -> str | None:
    return fields.text(config, MODEL_OF, fields.SITE_NAME) if MODEL_OF in config else None
