"""The messages of a run, typed, to and from Flower's records; all that arrives is checked here.

This is the one module of the library that imports Flower. A message's content has at most four
records: ``arrays`` (one flat vector, ``weights``), ``config`` (texts and the round), ``metrics``
(the numbers of a reply) and ``statistics`` (a site's mergeable statistics).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from nognet.errors import WireError
from nognet.types import Split
from nognet.wire import fields
from nognet.wire.contract import Contract, contract_json, parse_contract
from nognet.wire.flat import FlatWeights, checked_flat

ARRAYS, WEIGHTS, CONFIG, METRICS, STATISTICS = (
    "arrays",
    "weights",
    "config",
    "metrics",
    "statistics",
)
ROUND_KEY = "server-round"  # Flower's strategies write the round under this key
_KINDS = {
    ARRAYS: ArrayRecord,
    CONFIG: ConfigRecord,
    METRICS: MetricRecord,
    STATISTICS: MetricRecord,
}
_STRATEGY_KEYS = {"proximal-mu"}  # what strategies add; the study says the same, so it isn't read


@dataclass(frozen=True)
class JoinTask:
    """The coordinator asks a site who it is and what its numbers mean."""

    study_json: str
    contract: Contract
    run_token: str

    def to_content(self) -> RecordDict:
        """Write the message's content."""
        config = ConfigRecord(
            {
                "study": self.study_json,
                "contract": contract_json(self.contract),
                "run": self.run_token,
            }
        )
        return RecordDict({CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict) -> JoinTask:
        """Read and check a received content.

        Raises:
            WireError: a record or key is missing, unknown or of the wrong type.
        """
        _expect_records(content, {CONFIG})
        config = _config(content, {"study", "contract", "run"})
        return cls(
            study_json=fields.text(config, "study"),
            contract=parse_contract(fields.text(config, "contract")),
            run_token=fields.text(config, "run", fields.TOKEN),
        )


@dataclass(frozen=True)
class JoinReply:
    """A site's answer: its name, its software, its contract, how many patients and pairs."""

    site: str
    versions: Mapping[str, str]
    contract: Contract
    counts: fields.Counts

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        config = ConfigRecord(
            {
                "site": self.site,
                "versions": json.dumps(dict(self.versions), sort_keys=True),
                "contract": contract_json(self.contract),
            }
        )
        return RecordDict({CONFIG: config, METRICS: _metrics(fields.flat_counts(self.counts))})

    @classmethod
    def from_content(cls, content: RecordDict) -> JoinReply:
        """Read and check a received content.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range.
        """
        _expect_records(content, {CONFIG, METRICS})
        config = _config(content, {"site", "versions", "contract"})
        return cls(
            site=fields.text(config, "site", fields.SITE_NAME),
            versions=fields.versions(fields.text(config, "versions")),
            contract=parse_contract(fields.text(config, "contract")),
            counts=fields.nested_counts(content.metric_records[METRICS]),
        )


@dataclass(frozen=True)
class TrainTask:
    """Train one round from these weights."""

    round_number: int
    study_json: str
    contract_hash: str
    run_token: str
    weights: FlatWeights

    def to_records(self) -> tuple[ArrayRecord, ConfigRecord]:
        """Write arrays and config, which a strategy puts into its messages."""
        return weights_record(self.weights), ConfigRecord(
            {
                ROUND_KEY: self.round_number,
                "study": self.study_json,
                "contract-hash": self.contract_hash,
                "run": self.run_token,
            }
        )

    @classmethod
    def from_content(cls, content: RecordDict) -> TrainTask:
        """Read and check a received content; the site knows the length from the contract.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range.
        """
        _expect_records(content, {ARRAYS, CONFIG})
        keys = {ROUND_KEY, "study", "contract-hash", "run"}
        config = _config(content, keys, optional=_STRATEGY_KEYS)
        return cls(
            round_number=fields.round_number(config, ROUND_KEY),
            study_json=fields.text(config, "study"),
            contract_hash=fields.text(config, "contract-hash", fields.TOKEN),
            run_token=fields.text(config, "run", fields.TOKEN),
            weights=_weights(content, None),
        )


@dataclass(frozen=True)
class TrainReply:
    """What a site gives back after a round of training; no loss under differential privacy."""

    site: str
    round_number: int
    weights: FlatWeights = field(repr=False)
    n_pairs: int
    n_patients: int
    steps: int
    mean_loss: float | None
    seconds: float
    epsilon: float | None = None
    delta: float | None = None

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        numbers: dict[str, int | float] = {
            "n-pairs": self.n_pairs,
            "n-patients": self.n_patients,
            "steps": self.steps,
            "seconds": self.seconds,
        }
        optional = {"loss": self.mean_loss, "epsilon": self.epsilon, "delta": self.delta}
        numbers |= {key: value for key, value in optional.items() if value is not None}
        return RecordDict(
            {
                ARRAYS: weights_record(self.weights),
                METRICS: _metrics(numbers),
                CONFIG: ConfigRecord({"site": self.site, ROUND_KEY: self.round_number}),
            }
        )

    @classmethod
    def from_content(cls, content: RecordDict, *, length: int) -> TrainReply:
        """Read and check a received content with `length` parameters.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range; the
                weights are of the wrong dtype or length or not finite; no pairs stand behind them.
        """
        _expect_records(content, {ARRAYS, METRICS, CONFIG})
        config = _config(content, {"site", ROUND_KEY})
        required = {"n-pairs", "n-patients", "steps", "seconds"}
        numbers = _numbers(content, required, optional={"loss", "epsilon", "delta"})
        n_pairs, n_patients = fields.count(numbers, "n-pairs"), fields.count(numbers, "n-patients")
        if not 1 <= n_patients <= n_pairs:
            raise WireError(
                f"found {n_pairs} pairs of {n_patients} patients behind an update, expected at "
                "least one patient and no more patients than pairs",
                code="no-examples" if n_pairs == 0 or n_patients == 0 else "counts",
            )
        return cls(
            site=fields.text(config, "site", fields.SITE_NAME),
            round_number=fields.round_number(config, ROUND_KEY),
            weights=_weights(content, length),
            n_pairs=n_pairs,
            n_patients=n_patients,
            steps=fields.count(numbers, "steps"),
            mean_loss=_optional(numbers, "loss", -math.inf, math.inf),
            seconds=fields.number(numbers, "seconds", 0.0),
            epsilon=_optional(numbers, "epsilon", 0.0, math.inf),
            delta=_optional(numbers, "delta", 0.0, 1.0),
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
        _expect_records(content, {ARRAYS, CONFIG})
        config = _config(content, {ROUND_KEY, "split", "study", "contract-hash", "run"})
        return cls(
            round_number=fields.round_number(config, ROUND_KEY),
            split=fields.split_name(config),
            study_json=fields.text(config, "study"),
            contract_hash=fields.text(config, "contract-hash", fields.TOKEN),
            run_token=fields.text(config, "run", fields.TOKEN),
            weights=_weights(content, None),
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
                STATISTICS: _metrics(self.statistics),
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
        _expect_records(content, {STATISTICS, METRICS, CONFIG})
        config = _config(content, {"site", ROUND_KEY, "split"})
        numbers = _numbers(content, {"seconds"})
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


def weights_record(weights: FlatWeights) -> ArrayRecord:
    """Wrap a flat vector as Flower's record of arrays."""
    return ArrayRecord({WEIGHTS: Array(weights)})


def content_bytes(content: RecordDict) -> int:
    """Count the payload of a message: arrays, numbers and texts, without the protocol's frames."""
    return sum(record.count_bytes() for record in content.values())


def _expect_records(content: RecordDict, names: set[str]) -> None:
    found = set(content)
    if found != names:
        raise WireError(
            f"found records {fields.shown(found)}, expected {sorted(names)}", code="records"
        )
    for name in sorted(names):
        if not isinstance(content[name], _KINDS[name]):
            raise WireError(f"record '{name}' is of the wrong kind", code="records")


def _config(
    content: RecordDict, required: set[str], optional: set[str] | None = None
) -> Mapping[str, Any]:
    config = dict(content.config_records[CONFIG].items())
    fields.expect_keys(set(config), required, optional or set())
    return config


def _numbers(
    content: RecordDict, required: set[str], optional: set[str] | None = None
) -> dict[str, int | float]:
    numbers = fields.numbers(content.metric_records[METRICS])
    fields.expect_keys(set(numbers), required, optional or set())
    return numbers


def _optional(numbers: Mapping[str, float], key: str, low: float, high: float) -> float | None:
    return fields.number(numbers, key, low, high) if key in numbers else None


def _metrics(numbers: Mapping[str, int | float]) -> MetricRecord:
    return MetricRecord(dict(numbers.items()))


def _weights(content: RecordDict, length: int | None) -> FlatWeights:
    """Take the flat vector; sizes are checked before a byte of it is decoded."""
    record = content.array_records[ARRAYS]
    fields.expect_keys(set(record), {WEIGHTS})
    array = record[WEIGHTS]
    expected = math.prod(array.shape) if length is None else length
    if array.dtype != "float32":
        raise WireError(f"the weights: dtype {array.dtype[:20]}, expected float32", code="dtype")
    if tuple(array.shape) != (expected,):
        raise WireError(
            f"the weights: shape {tuple(array.shape)[:4]}, expected ({expected},)", code="shape"
        )
    return checked_flat(_decoded(array.data, expected), expected, what="the weights received")


def _decoded(data: bytes, length: int) -> NDArray[np.float32]:
    """View `.npy` bytes as the vector they must hold.

    Flower decodes with `numpy.load`, which allocates whatever size the bytes claim; here the claim
    is checked first, and nothing is copied.
    """
    buffer = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(buffer)
        if version != (1, 0):
            raise WireError("the weights received: unknown .npy version", code="damaged")
        shape, _, dtype = np.lib.format.read_array_header_1_0(buffer)
    except ValueError as err:
        raise WireError("the weights received are not in .npy form", code="damaged") from err
    start = buffer.tell()
    if shape != (length,) or dtype != np.dtype("<f4") or len(data) - start != 4 * length:
        raise WireError("the weights received are not what they declare to be", code="damaged")
    return np.frombuffer(data, dtype=np.float32, offset=start)
