"""Joining: who a site is, and what its numbers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from nognet.errors import WireError
from nognet.wire import fields
from nognet.wire.contract import Contract, contract_json, parse_contract
from nognet.wire.records.parts import CONFIG, METRICS, config_of, expect_records, metrics_record

_SHARES = "shares-models"
_REFUSAL = "refusal"
FAULTS = "faults"
"""Name under which a site in a rehearsal tells, among its versions, how it fails on purpose."""


@dataclass(frozen=True)
class JoinTask:
    """The coordinator asks a site who it is and what its numbers mean.

    Attributes:
        study_json: The study, as sites get it.
        contract: What its numbers mean.
        run_token: The run.
        refusal: Why the coordinator did not use the site by its last answer; empty for no cause.
            It is not written then, so that another release comes as far as the contract, which
            names both releases.
    """

    study_json: str
    contract: Contract
    run_token: str
    refusal: str = ""

    def to_content(self) -> RecordDict:
        """Write the message's content."""
        refusal = {_REFUSAL: self.refusal} if self.refusal else {}
        config = ConfigRecord(
            {
                "study": self.study_json,
                "contract": contract_json(self.contract),
                "run": self.run_token,
                **refusal,
            }
        )
        return RecordDict({CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict) -> JoinTask:
        """Read and check a received content.

        Raises:
            WireError: a record or key is missing, unknown or of the wrong type.
        """
        expect_records(content, {CONFIG})
        config = config_of(content, {"study", "contract", "run"}, optional={_REFUSAL})
        return cls(
            study_json=fields.text(config, "study"),
            contract=parse_contract(fields.text(config, "contract")),
            run_token=fields.text(config, "run", fields.TOKEN),
            refusal=fields.text(config, _REFUSAL, fields.REFUSAL) if _REFUSAL in config else "",
        )


@dataclass(frozen=True)
class JoinReply:
    """A site's answer: its name, its software, its contract, how many patients and pairs.

    And whether it lets its own model visit other sites (`share_models` in site.yaml), and how many
    patients it wants behind each number (`egress.min_patients`): counts of fewer are withheld.
    """

    site: str
    versions: Mapping[str, str]
    contract: Contract
    counts: fields.Counts
    shares_models: bool = False
    min_patients: int = 1

    def to_content(self) -> RecordDict:
        """Write the reply's content."""
        config = ConfigRecord(
            {
                "site": self.site,
                "versions": json.dumps(dict(self.versions), sort_keys=True),
                "contract": contract_json(self.contract),
                _SHARES: self.shares_models,
            }
        )
        numbers = {**fields.flat_counts(self.counts), fields.MIN_PATIENTS: self.min_patients}
        return RecordDict({CONFIG: config, METRICS: metrics_record(numbers)})

    @classmethod
    def from_content(cls, content: RecordDict) -> JoinReply:
        """Read and check a received content.

        Raises:
            WireError: a record or key is missing, unknown, of the wrong type or out of range.
        """
        expect_records(content, {CONFIG, METRICS})
        config = config_of(content, {"site", "versions", "contract", _SHARES})
        numbers = fields.numbers(content.metric_records[METRICS])
        if fields.MIN_PATIENTS not in numbers:
            raise WireError(f"missing key {fields.MIN_PATIENTS}", code="keys")
        least = fields.count(
            {fields.MIN_PATIENTS: numbers.pop(fields.MIN_PATIENTS)}, fields.MIN_PATIENTS
        )
        return cls(
            site=fields.text(config, "site", fields.SITE_NAME),
            versions=fields.versions(fields.text(config, "versions")),
            contract=parse_contract(fields.text(config, "contract")),
            counts=fields.nested_counts(numbers),
            shares_models=fields.flag(config, _SHARES),
            min_patients=least,
        )
