"""What a hostile coordinator may ask of a hospital: messages built by hand, and who gets them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, Message, RecordDict
from flwr.clientapp import ClientApp

import nognet
from nognet.audit.log import AuditLog, egress_folder
from nognet.audit.verify import read_entries, verify
from nognet.config import StudyConfig, load_site
from nognet.wire.contract import contract, contract_hash
from nognet.wire.records import JoinTask, ShareTask
from tests.builders.egress import ask, evaluate_task, train_content, train_task

OTHER_RUN = "cd" * 16
CROSS_SITE = {"personalisation": {"local": "norms", "cross_site": "local"}}
CONSENT = f"""consent:
  studies: [tiny]
  releases: ["{nognet.__version__}"]
  max_rounds: 6
  metrics: [dsc]
"""


@dataclass(frozen=True)
class Hospital:
    """A site with a consent, and its app."""

    path: Path
    study: StudyConfig
    app: ClientApp

    @property
    def state(self) -> Path:
        return load_site(self.path).state

    def ask(self, kind: str, content: RecordDict) -> Message:
        return ask(self.app, self.path, kind, content)

    def train(self, number: int, **changes: Any) -> Message:
        task = dataclasses.replace(train_task(self.study, round_number=number), **changes)
        return self.ask("train", train_content(task))

    def recorded(self) -> list[dict[str, Any]]:
        log = AuditLog(egress_folder(self.state))
        assert verify(log).faults == ()
        return [dict(entry.event) for _, entry in read_entries(log.path) if entry is not None]


def with_study(hospital: Hospital, **changes: Any) -> StudyConfig:
    values = {**json.loads(hospital.study.for_sites()), **changes}
    return StudyConfig.model_validate(values)


def joining(hospital: Hospital, *, run: str = OTHER_RUN, **changes: Any) -> tuple[str, RecordDict]:
    study = with_study(hospital, **changes)
    return "query", JoinTask(study.for_sites(), contract(study), run).to_content()


def training(hospital: Hospital, **changes: Any) -> tuple[str, RecordDict]:
    task = dataclasses.replace(train_task(hospital.study, round_number=2), **changes)
    return "train", train_content(task)


def evaluating(hospital: Hospital, **changes: Any) -> tuple[str, RecordDict]:
    task = evaluate_task(hospital.study)
    return "evaluate", dataclasses.replace(task, **changes).to_content()


def sharing(study: StudyConfig, run: str) -> tuple[str, RecordDict]:
    digest = contract_hash(contract(study))
    return "query.share", ShareTask(1, study.for_sites(), digest, run).to_content()


def joined_sharing(hospital: Hospital, run: str) -> tuple[str, RecordDict]:
    assert hospital.ask(*joining(hospital, run=run, **CROSS_SITE)).has_content()
    return sharing(with_study(hospital, **CROSS_SITE), run)


def with_record(hospital: Hospital, name: str, record: Any) -> tuple[str, RecordDict]:
    kind, content = training(hospital)
    content[name] = record
    return kind, content


def with_key(hospital: Hospital, key: str, value: Any) -> tuple[str, RecordDict]:
    kind, content = training(hospital)
    content.config_records["config"][key] = value
    return kind, content


def with_vector(hospital: Hospital, name: str, array: Array) -> tuple[str, RecordDict]:
    kind, content = training(hospital)
    content.array_records["arrays"][name] = array
    return kind, content


def of_kind(kind: str) -> Callable[[Hospital], tuple[str, RecordDict]]:
    return lambda hospital: (kind, training(hospital)[1])


def other_study(hospital: Hospital, **changes: Any) -> str:
    return with_study(hospital, **changes).for_sites()


def claims_terabytes() -> Array:
    array = Array(np.zeros(4, np.float32))
    return Array("float32", (10**12,), "numpy.ndarray", array.data)


def weights_like(hospital: Hospital, value: float, *, more: int = 0) -> np.ndarray:
    size = train_task(hospital.study).weights.size
    return np.full(size + more, value, np.float32)
