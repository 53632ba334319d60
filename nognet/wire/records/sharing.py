"""Sharing: a site that lets its own model visit others gives it, all of its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import ConfigRecord, RecordDict

from nognet.wire import fields
from nognet.wire.flat import FlatWeights
from nognet.wire.records.parts import (
    ARRAYS,
    CONFIG,
    ROUND_KEY,
    WEIGHTS,
    config_of,
    expect_records,
    vectors_of,
    weights_record,
)

SHARE_ACTION = "share"
"""Flower's name of the action: the message's type is ``query.share``."""


@dataclass(frozen=True)
class ShareTask:
    """Give the site's own model, as it was evaluated with that round's global weights."""

    round_number: int
    study_json: str
    contract_hash: str
    run_token: str

    def to_content(self) -> RecordDict:
        """Write the message's content."""
        config = ConfigRecord(
            {
                ROUND_KEY: self.round_number,
                "study": self.study_json,
                "contract-hash": self.contract_hash,
                "run": self.run_token,
            }
        )
        return RecordDict({CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict) -> ShareTask:
        """Read and check a received content.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range.
        """
        expect_records(content, {CONFIG})
        config = config_of(content, {ROUND_KEY, "study", "contract-hash", "run"})
        return cls(
            round_number=fields.round_number(config, ROUND_KEY),
            study_json=fields.text(config, "study"),
            contract_hash=fields.text(config, "contract-hash", fields.TOKEN),
            run_token=fields.text(config, "run", fields.TOKEN),
        )


@dataclass(frozen=True)
class ShareReply:
    """A site's own model, shared and local parameters together."""

    site: str
    round_number: int
    weights: FlatWeights = field(repr=False)

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        config = ConfigRecord({"site": self.site, ROUND_KEY: self.round_number})
        return RecordDict({ARRAYS: weights_record(self.weights), CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict, *, length: int) -> ShareReply:
        """Read and check a received content with `length` parameters.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range; the
                weights are of the wrong dtype or length or not finite.
        """
        expect_records(content, {ARRAYS, CONFIG})
        config = config_of(content, {"site", ROUND_KEY})
        return cls(
            site=fields.text(config, "site", fields.SITE_NAME),
            round_number=fields.round_number(config, ROUND_KEY),
            weights=vectors_of(content, {WEIGHTS}, length)[WEIGHTS],
        )
