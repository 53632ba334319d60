"""A site's four messages, ready to leave, and its answers through the whole client app."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from nognet_client.egress.limits import limits_of
from nognet_client.egress.release import Outgoing
from nognet_client.egress.replies import (
    checked_update,
    of_evaluation,
    of_joining,
    of_sharing,
    of_training,
)
from nognet_client.evaluating import evaluate
from nognet_client.site import Site
from nognet_client.tasks import join, train

from nognet.audit.log import AuditLog, egress_folder
from nognet.audit.verify import read_entries, verify
from nognet.config import StudyConfig
from nognet.data.store import write_store
from nognet.fit.weights import initial_weights, weight_spec
from nognet.types import SPLITS, Split
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import FlatWeights, pack
from nognet.wire.records import EvaluateTask, JoinTask, ShareReply, ShareTask, TrainTask
from tests.builders.federation import make_site, make_study, opened, roi_pair, stub_work

RUN = "ab" * 16


def weights_of(study: StudyConfig) -> FlatWeights:
    """First weights of a study."""
    return pack(initial_weights(study.network, study.seed), weight_spec(study.network))


def train_task(study: StudyConfig, *, round_number: int = 1, run: str = RUN) -> TrainTask:
    digest = contract_hash(contract(study))
    return TrainTask(round_number, study.for_sites(), digest, run, weights_of(study))


def train_content(task: TrainTask) -> RecordDict:
    arrays, config = task.to_records()
    return RecordDict({"arrays": arrays, "config": config})


def evaluate_task(
    study: StudyConfig, *, split: Any = "test", round_number: int = 1
) -> EvaluateTask:
    digest = contract_hash(contract(study))
    return EvaluateTask(round_number, split, study.for_sites(), digest, RUN, weights_of(study))


def join_task(study: StudyConfig) -> JoinTask:
    return JoinTask(study.for_sites(), contract(study), RUN)


def ask(app: ClientApp, site: Path | None, kind: str, content: RecordDict) -> Message:
    """Let an app answer a message as its node would; Flower's task identity has to be set."""
    node_config: dict[str, Any] = {} if site is None else {"site-config": str(site)}
    context = Context(
        run_id=1, node_id=2, node_config=node_config, state=RecordDict(), run_config={}
    )
    return app(Message(content, 2, kind), context)


def outgoing(folder: Path, **egress: Any) -> dict[str, Outgoing]:
    """Make a site's messages as they want to leave, by kind."""
    study = make_study(folder)
    site = Site(*opened(make_site(folder, "site_a", pairs=70, **egress)))
    task, asked = train_task(study), evaluate_task(study)
    reply = train(task, site, stub_work())
    update = checked_update(task, reply, study, site.config)
    sharing = ShareTask(1, study.for_sites(), contract_hash(contract(study)), RUN)
    shared = ShareReply("site_a", 1, np.array(task.weights))
    question = join_task(study)
    return {
        "join": of_joining(question, join(question, site, stub_work()), site),
        "train": of_training(task, reply, site, study, update),
        "evaluate": of_evaluation(
            asked, evaluate(asked, site, stub_work()), site, limits_of(site, study, "test")
        ),
        "share": of_sharing(sharing, shared, site),
    }


def with_more_patients(site: Path, more: int, *, into: Split = "test") -> Path:
    """Prepare a site's pairs again, with some patients more in one of its splits."""
    config, prepared = opened(site)
    rng = np.random.default_rng(8)
    old = [pair for split in SPLITS for pair in prepared.pairs(split)]
    new = [roi_pair(1000 + 3 * number, rng) for number in range(more)]
    splits = {**prepared.index.splits, **{pair.patient_id: into for pair in new}}
    write_store(config.cache, [*old, *new], splits, roi=prepared.roi)
    return site


def state_of(site: Path) -> Path:
    """Where a site keeps its log and receipts."""
    return egress_folder(site.parent / "state")


def receipt(site: Path, name: str) -> dict[str, Any]:
    """Read a receipt of the run."""
    found: dict[str, Any] = json.loads((state_of(site) / "receipts" / RUN / name).read_text())
    return found


def events(site: Path) -> list[dict[str, Any]]:
    """List what left, by a log that is whole."""
    log = AuditLog(state_of(site))
    assert verify(log).faults == ()
    found = [dict(entry.event) for _, entry in read_entries(log.path) if entry is not None]
    return [event for event in found if event["kind"] != "consent"]  # what left, not what may ask
