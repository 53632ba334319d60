"""Secure sums: keys, shares, agreement and unmasking around a round's training, in rows by site.

keys    ()                                  -> own keys, signed
shares  keys of all sites                   -> a sealed share for each, a commitment
train   weights, sealed shares for the site -> the masked update
agree   who is in the sum                   -> a signature
reveal  signatures                          -> of each site a share of its seed or of its key
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from nognet.errors import WireError
from nognet.wire import fields
from nognet.wire.records.parts import (
    ARRAYS,
    CONFIG,
    METRICS,
    ROUND_KEY,
    config_of,
    expect_records,
    metrics_record,
    numbers_of,
    optional_number,
)
from nognet.wire.records.secure_rows import COLUMNS, Rows, Step, parse_rows, rows_text
from nognet.wire.records.training import TrainTask

SECURE_ACTION = "secure"
"""Flower's name of the action: types are ``query.secure`` and, with training, ``train.secure``."""
MASKED = "masked"
_SHORT_STEPS: tuple[Step, ...] = ("keys", "shares", "agree", "reveal")
_STEP, _SESSION, _ROWS = "step", "session", "rows"
_ADDED = {_SESSION, _ROWS}


@dataclass(frozen=True)
class SecureTask:
    """Do one of the short steps of a secure sum."""

    step: Step
    round_number: int
    study_json: str
    contract_hash: str
    run_token: str
    session: str
    rows: Rows = field(default_factory=dict, repr=False)

    def to_content(self) -> RecordDict:
        """Write the message's content."""
        config = ConfigRecord(
            {
                _STEP: self.step,
                ROUND_KEY: self.round_number,
                "study": self.study_json,
                "contract-hash": self.contract_hash,
                "run": self.run_token,
                _SESSION: self.session,
                _ROWS: rows_text(self.rows),
            }
        )
        return RecordDict({CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict) -> SecureTask:
        """Read and check a received content.

        Raises:
            WireError: a record, key, row or column is missing, unknown, of the wrong type or size.
        """
        expect_records(content, {CONFIG})
        keys = {_STEP, ROUND_KEY, "study", "contract-hash", "run", _SESSION, _ROWS}
        config = config_of(content, keys)
        step = _step(config)
        return cls(
            step=step,
            round_number=fields.round_number(config, ROUND_KEY),
            study_json=fields.text(config, "study"),
            contract_hash=fields.text(config, "contract-hash", fields.TOKEN),
            run_token=fields.text(config, "run", fields.TOKEN),
            session=fields.text(config, _SESSION, fields.TOKEN),
            rows=parse_rows(fields.text(config, _ROWS), COLUMNS["task", step]),
        )


@dataclass(frozen=True)
class SecureReply:
    """What a site gives at a short step."""

    site: str
    step: Step
    round_number: int
    session: str
    rows: Rows = field(repr=False)

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        return RecordDict({CONFIG: ConfigRecord({**self.texts()})})

    def texts(self) -> dict[str, str | int]:
        """Give all that is in it, by key."""
        return {
            "site": self.site,
            _STEP: self.step,
            ROUND_KEY: self.round_number,
            _SESSION: self.session,
            _ROWS: rows_text(self.rows),
        }

    @classmethod
    def from_content(cls, content: RecordDict) -> SecureReply:
        """Read and check a received content.

        Raises:
            WireError: a record, key, row or column is missing, unknown, of the wrong type or size.
        """
        expect_records(content, {CONFIG})
        config = config_of(content, {"site", _STEP, ROUND_KEY, _SESSION, _ROWS})
        step = _step(config)
        return cls(
            site=fields.text(config, "site", fields.SITE_NAME),
            step=step,
            round_number=fields.round_number(config, ROUND_KEY),
            session=fields.text(config, _SESSION, fields.TOKEN),
            rows=parse_rows(fields.text(config, _ROWS), COLUMNS["reply", step]),
        )


@dataclass(frozen=True)
class MaskedTrainTask:
    """Train one round and mask the update; the rows hold the sealed shares for this site."""

    task: TrainTask
    session: str
    rows: Rows = field(repr=False)

    def to_content(self) -> RecordDict:
        """Write the message's content."""
        arrays, config = self.task.to_records()
        added = {_SESSION: self.session, _ROWS: rows_text(self.rows)}
        return RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({**dict(config.items()), **added})})

    @classmethod
    def from_content(cls, content: RecordDict) -> MaskedTrainTask:
        """Read and check a received content.

        Raises:
            WireError: as `TrainTask.from_content`, or a row is wrong.
        """
        expect_records(content, {ARRAYS, CONFIG})
        config = dict(content.config_records[CONFIG].items())
        fields.expect_keys(set(config) & _ADDED, _ADDED)
        plain = ConfigRecord({key: value for key, value in config.items() if key not in _ADDED})
        task = TrainTask.from_content(
            RecordDict({ARRAYS: content.array_records[ARRAYS], CONFIG: plain})
        )
        rows = parse_rows(fields.text(config, _ROWS), COLUMNS["task", "train"])
        return cls(task, fields.text(config, _SESSION, fields.TOKEN), rows)


@dataclass(frozen=True)
class MaskedTrainReply:
    """A masked update; no loss and no count stands beside it; `epsilon` as in `TrainReply`."""

    site: str
    round_number: int
    session: str
    words: NDArray[np.unsignedinteger[Any]] = field(repr=False)
    seconds: float
    epsilon: float | None = None
    delta: float | None = None

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        optional = {"epsilon": self.epsilon, "delta": self.delta}
        numbers: dict[str, int | float] = {"seconds": self.seconds}
        numbers |= {key: value for key, value in optional.items() if value is not None}
        return RecordDict(
            {
                ARRAYS: ArrayRecord({MASKED: Array(self.words)}),
                METRICS: metrics_record(numbers),
                CONFIG: ConfigRecord({**self.texts()}),
            }
        )

    def texts(self) -> dict[str, str | int]:
        """Give its texts, by key."""
        return {"site": self.site, ROUND_KEY: self.round_number, _SESSION: self.session}

    @classmethod
    def from_content(
        cls, content: RecordDict, *, length: int, word: np.dtype[Any]
    ) -> MaskedTrainReply:
        """Read and check a received content of `length` words.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range, or
                the words are others than declared.
        """
        expect_records(content, {ARRAYS, METRICS, CONFIG})
        config = config_of(content, {"site", ROUND_KEY, _SESSION})
        numbers = numbers_of(content, {"seconds"}, optional={"epsilon", "delta"})
        record = content.array_records[ARRAYS]
        fields.expect_keys(set(record), {MASKED})
        return cls(
            site=fields.text(config, "site", fields.SITE_NAME),
            round_number=fields.round_number(config, ROUND_KEY),
            session=fields.text(config, _SESSION, fields.TOKEN),
            words=_words(record[MASKED], length, word),
            seconds=fields.number(numbers, "seconds", 0.0),
            epsilon=optional_number(numbers, "epsilon", 0.0, math.inf),
            delta=optional_number(numbers, "delta", 0.0, 1.0),
        )


def _step(config: Mapping[str, Any]) -> Step:
    for step in _SHORT_STEPS:
        if config[_STEP] == step:
            return step
    raise WireError(f"step: expected one of {', '.join(_SHORT_STEPS)}", code="form")


def _words(array: Array, length: int, word: np.dtype[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """View the words; all that is declared is checked before they are touched."""
    header = io.BytesIO()
    declared = {"descr": word.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, declared)
    start = header.getvalue()
    whole = len(start) + length * word.itemsize
    if not array.data.startswith(start) or len(array.data) != whole:
        raise WireError(f"the words received are not {length} of {word}", code="shape")
    return np.frombuffer(array.data, dtype=word, offset=len(start))
