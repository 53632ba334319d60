"""The receipt of one message: everything about it but its numbers, for whoever answers for them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from nognet.wire.records import ARRAYS, content_bytes, content_digest
from nognet_client.egress.updates import UpdateFacts, VectorFacts


@dataclass(frozen=True)
class About:
    """Which message it is.

    Attributes:
        kind: ``join``, ``train``, ``evaluate-test``, ``share``, ``train-error`` ...
        run: The run's random name; ``unknown`` where the task had none.
        round_number: None where the task had none.
    """

    kind: str
    run: str
    round_number: int | None = None

    @property
    def file_stem(self) -> str:
        """The receipt's file name without suffix."""
        return self.kind if self.round_number is None else f"{self.round_number:05d}-{self.kind}"


@dataclass(frozen=True)
class Facts:
    """What stands behind a message.

    Attributes:
        counts: Patients and pairs, by name; None where they were withheld.
        epsilon: Of this run up to this round, with `delta`, as it leaves; None without
            differential privacy.
        epsilon_charged: Of the patient charged most, over all studies; it stays here.
        delta: At which it holds.
        update: Of a training reply, measured before anything masked it.
        model: A model of the site's own that is shared.
        withheld: What has too few patients behind it.
        figures: Predictor and metric -> stratum -> pairs, of the figures that are told.
        noise: That was added to an update before it was masked; None where none was.
    """

    counts: Mapping[str, Any] = field(default_factory=dict)
    epsilon: float | None = None
    epsilon_charged: float | None = None
    delta: float | None = None
    update: UpdateFacts | None = None
    model: VectorFacts | None = None
    withheld: tuple[str, ...] = ()
    figures: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    noise: Mapping[str, Any] | None = None


def receipt_of(site: str, about: About, content: RecordDict, facts: Facts) -> dict[str, Any]:
    """Describe a message that the gate lets out."""
    update, model = facts.update, facts.model
    measured = update if model is None else model
    return {
        **_head(site, about, "allowed"),
        "bytes": content_bytes(content),
        "payload_sha256": content_digest(content),
        "vectors": _vectors(content),
        "update_norm": None if update is None else update.norm,
        "max_update_norm": None if update is None else update.limit,
        "model_norm": None if model is None else model.norm,
        "max_model_norm": None if model is None else model.limit,
        "tensors": [] if measured is None else [asdict(tensor) for tensor in measured.tensors],
        "control": None if update is None or update.control is None else asdict(update.control),
        "counts": dict(facts.counts),
        "epsilon": facts.epsilon,
        "epsilon_charged": facts.epsilon_charged,
        "delta": facts.delta,
        "withheld": list(facts.withheld),
        "figures": facts.figures,
        "noise": None if facts.noise is None else dict(facts.noise),
    }


def error_receipt(site: str, about: About, public_code: str) -> dict[str, Any]:
    """Describe an error, of which class and code leave."""
    return {
        **_head(site, about, "error"),
        "bytes": len(public_code),
        "payload_sha256": hashlib.sha256(public_code.encode()).hexdigest(),
        "code": public_code,
    }


def receipt_text(receipt: Mapping[str, Any]) -> str:
    """Write a receipt as JSON."""
    return json.dumps(receipt, indent=2, allow_nan=False) + "\n"


def log_event(receipt: Mapping[str, Any], name: str, text: str) -> dict[str, Any]:
    """Say in the audit log what a receipt says at length.

    Args:
        receipt: As made above.
        name: Of its file, from the log's folder.
        text: Its contents.
    """
    keys = (
        "kind", "decision", "run", "round", "bytes", "payload_sha256", "update_norm", "counts",
        "epsilon", "epsilon_charged", "delta", "withheld", "noise", "code",
    )  # fmt: skip
    told = {key: receipt[key] for key in keys if receipt.get(key) not in (None, [], {})}
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {**told, "receipt": name, "receipt_sha256": digest}


def _head(site: str, about: About, decision: str) -> dict[str, Any]:
    return {
        "site": site,
        "kind": about.kind,
        "run": about.run,
        "round": about.round_number,
        "decision": decision,
    }


def _vectors(content: RecordDict) -> dict[str, Any]:
    """Describe the vectors as they leave; their hash is over the numbers' own bytes."""
    facts = {}
    arrays = content.array_records[ARRAYS] if ARRAYS in content else ArrayRecord()
    for name, array in arrays.items():
        values = np.load(io.BytesIO(array.data), allow_pickle=False)
        facts[name] = {
            "dtype": str(values.dtype),
            "length": int(values.size),
            "bytes": int(values.nbytes),
            "norm": float(np.linalg.norm(values.astype(np.float64))),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        }
    return facts
