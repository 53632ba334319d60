"""Training: global weights out, a site's weights back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from nognet.errors import WireError
from nognet.wire import fields
from nognet.wire.flat import FlatWeights
from nognet.wire.records.parts import (
    ARRAYS,
    CONFIG,
    METRICS,
    ROUND_KEY,
    WEIGHTS,
    arrays_record,
    config_of,
    expect_records,
    metrics_record,
    numbers_of,
    optional_number,
    vectors_of,
)

CORRECTION, CONTROL = "correction", "control"
_START_LOSS = "start-loss"
_LEAST_LOSS = 1e-12  # powers below 0 of it have to stay finite
_STRATEGY_KEYS = {"proximal-mu"}  # what strategies add; the study says the same, so it isn't read


@dataclass(frozen=True)
class TrainTask:
    """Train one round from these weights; SCAFFOLD adds a correction to the site's gradients."""

    round_number: int
    study_json: str
    contract_hash: str
    run_token: str
    weights: FlatWeights = field(repr=False)
    correction: FlatWeights | None = field(default=None, repr=False)

    def to_records(self) -> tuple[ArrayRecord, ConfigRecord]:
        """Write arrays and config, which a strategy puts into its messages."""
        return arrays_record({WEIGHTS: self.weights, CORRECTION: self.correction}), ConfigRecord(
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
        expect_records(content, {ARRAYS, CONFIG})
        keys = {ROUND_KEY, "study", "contract-hash", "run"}
        config = config_of(content, keys, optional=_STRATEGY_KEYS)
        vectors = vectors_of(content, {WEIGHTS}, None, optional={CORRECTION})
        return cls(
            round_number=fields.round_number(config, ROUND_KEY),
            study_json=fields.text(config, "study"),
            contract_hash=fields.text(config, "contract-hash", fields.TOKEN),
            run_token=fields.text(config, "run", fields.TOKEN),
            weights=vectors[WEIGHTS],
            correction=vectors.get(CORRECTION),
        )


@dataclass(frozen=True)
class ReplyForm:
    """What a study's strategy wants of a training reply besides weights.

    Attributes:
        control: A second vector, the site's control variate.
        start_loss: The loss of the global weights, before training.
    """

    control: bool = False
    start_loss: bool = False


PLAIN_REPLY = ReplyForm()


@dataclass(frozen=True)
class TrainReply:
    """What a site gives back after a round of training; no loss under differential privacy.

    `epsilon` is what this run has spent up to and with this round, and tells of no other run.

    `start_loss` and `control` are there for the strategies that ask for them, and never under
    differential privacy.
    """

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
    start_loss: float | None = None
    control: FlatWeights | None = field(default=None, repr=False)

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        numbers: dict[str, int | float] = {
            "n-pairs": self.n_pairs,
            "n-patients": self.n_patients,
            "steps": self.steps,
            "seconds": self.seconds,
        }
        optional = {
            "loss": self.mean_loss,
            "epsilon": self.epsilon,
            "delta": self.delta,
            _START_LOSS: self.start_loss,
        }
        numbers |= {key: value for key, value in optional.items() if value is not None}
        return RecordDict(
            {
                ARRAYS: arrays_record({WEIGHTS: self.weights, CONTROL: self.control}),
                METRICS: metrics_record(numbers),
                CONFIG: ConfigRecord({"site": self.site, ROUND_KEY: self.round_number}),
            }
        )

    @classmethod
    def from_content(
        cls, content: RecordDict, *, length: int, form: ReplyForm = PLAIN_REPLY
    ) -> TrainReply:
        """Read and check a received content with `length` parameters, exactly of the form wanted.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range; the
                weights are of the wrong dtype or length or not finite; no pairs stand behind them;
                a vector or number that the form wants is missing, or one is there that it doesn't.
        """
        expect_records(content, {ARRAYS, METRICS, CONFIG})
        config = config_of(content, {"site", ROUND_KEY})
        required = {"n-pairs", "n-patients", "steps", "seconds"}
        required |= {_START_LOSS} if form.start_loss else set()
        numbers = numbers_of(content, required, optional={"loss", "epsilon", "delta"})
        n_pairs, n_patients = _examples(numbers)
        wanted = {WEIGHTS, CONTROL} if form.control else {WEIGHTS}
        vectors = vectors_of(content, wanted, length)
        return cls(
            site=fields.text(config, "site", fields.SITE_NAME),
            round_number=fields.round_number(config, ROUND_KEY),
            weights=vectors[WEIGHTS],
            n_pairs=n_pairs,
            n_patients=n_patients,
            steps=fields.count(numbers, "steps"),
            mean_loss=optional_number(numbers, "loss", -math.inf, math.inf),
            seconds=fields.number(numbers, "seconds", 0.0),
            epsilon=optional_number(numbers, "epsilon", 0.0, math.inf),
            delta=optional_number(numbers, "delta", 0.0, 1.0),
            start_loss=optional_number(numbers, _START_LOSS, _LEAST_LOSS, math.inf),
            control=vectors.get(CONTROL),
        )


def _examples(numbers: Mapping[str, float]) -> tuple[int, int]:
    """Read how many pairs and patients stand behind an update."""
    n_pairs, n_patients = fields.count(numbers, "n-pairs"), fields.count(numbers, "n-patients")
    if not 1 <= n_patients <= n_pairs:
        raise WireError(
            f"found {n_pairs} pairs of {n_patients} patients behind an update, expected at "
            "least one patient and no more patients than pairs",
            code="no-examples" if n_pairs == 0 or n_patients == 0 else "counts",
        )
    return n_pairs, n_patients
