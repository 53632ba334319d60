"""Three sites on disk and a coordinator that asks them for a secure sum, step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nognet_client.egress.replies import checked_update
from nognet_client.masking.answers import masked_train, secure_step
from nognet_client.site import Site
from nognet_client.tasks import Work

from nognet.config import StudyConfig, load_site
from nognet.data.site.prepare import prepared_or_prepare
from nognet.fit.weights import initial_weights, weight_spec
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import MaskedTrainTask, Rows, SecureTask, Step, TrainTask
from tests.builders.federation import make_site, make_study, stub_work

TOKEN, NONCE = "ab" * 16, "cd" * 16
NAMES = ("site_a", "site_b", "site_c")


class Three:
    """Three sites on disk, and a coordinator that asks them."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """Write the sites; `changes` replace parts of the study."""
        values = {"secure_aggregation": {}, "federation": {"minimum_sites": 3}, **changes}
        self.study: StudyConfig = make_study(folder, **values)
        self.work: Work | None = None
        self.paths = {name: make_site(folder, name) for name in NAMES}

    def site(self, name: str) -> Site:
        """Open a site anew, as a process that was just started does."""
        config = load_site(self.paths[name])
        return Site(config, prepared_or_prepare(config))

    def step(self, name: str, step: Step, rows: Rows, **changes: Any) -> Rows:
        """Ask for a short step."""
        study = self.study
        digest = contract_hash(contract(study))
        task = SecureTask(step, 1, study.for_sites(), digest, TOKEN, NONCE, rows)
        return secure_step(replace(task, **changes), self.site(name)).rows

    def train(
        self,
        name: str,
        rows: Rows,
        *,
        moved: float = 0.0,
        step: float = 0.125,
        nonce: str = NONCE,
    ) -> Any:
        """Ask for a masked update, which moves each weight by a step."""
        study = self.study
        spec = weight_spec(study.network)
        weights = pack(initial_weights(study.network, study.seed), spec) + np.float32(moved)
        digest = contract_hash(contract(study))
        task = TrainTask(1, study.for_sites(), digest, TOKEN, weights)
        masked = MaskedTrainTask(task, nonce, rows)
        work = stub_work(step=step) if self.work is None else self.work
        return masked_train(masked, self.site(name), work, checked_update)

    def keys(self, **changes: Any) -> Rows:
        """Collect the keys."""
        return {name: self.step(name, "keys", {}, **changes)[name] for name in NAMES}

    def shares(self, keys: Rows, **changes: Any) -> dict[str, Rows]:
        """Collect the shares."""
        return {name: self.step(name, "shares", keys, **changes) for name in NAMES}

    def for_site(self, name: str, shares: dict[str, Rows]) -> Rows:
        """Give the shares that are for a site."""
        return {
            other: {"sealed": shares[other][name]["sealed"]} for other in NAMES if other != name
        }
