"""A site that accepts so much, and what it is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nognet_client.consent.objections import about_study
from nognet_client.request import Request
from nognet_client.tasks import Site

import nognet
from nognet.config import ConsentConfig, StudyConfig
from nognet.fit.weights import initial_weights, weight_spec
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import EvaluateTask, TrainTask
from tests.builders.federation import make_site, opened

TOKEN, OTHER = "ab" * 16, "cd" * 16
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def site_with(folder: Path, **limits: Any) -> Site:
    config, prepared = opened(make_site(folder, "site_a"))
    return Site(config.model_copy(update={"consent": ConsentConfig(**limits)}), prepared)


def request(site: Site, study: StudyConfig, **changes: Any) -> Request:
    asked = Request(study, contract_hash(contract(study)), TOKEN, site.config, site.prepared)
    return replace(asked, **changes)


def train_task(study: StudyConfig, number: int = 1, *, token: str = TOKEN) -> TrainTask:
    weights = pack(initial_weights(study.network, study.seed), weight_spec(study.network))
    digest = contract_hash(contract(study))
    return TrainTask(number, study.for_sites(), digest, token, weights)


def evaluate_task(study: StudyConfig, number: int = 1, *, split: Any = "test") -> EvaluateTask:
    asked = train_task(study, number)
    return EvaluateTask(number, split, asked.study_json, asked.contract_hash, TOKEN, asked.weights)


def codes(site: Site, study: StudyConfig, **changes: Any) -> list[str]:
    asked = request(site, study, **{"release": nognet.__version__, **changes})
    return [found.code for found in about_study(asked, NOON)]


PRIVACY = {"noise_multiplier": 1.0, "delta": 1e-3}
