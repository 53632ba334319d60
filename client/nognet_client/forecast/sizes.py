"""Bytes that a study sends and leaves on disk, counted on messages as they are really built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from nognet.config import SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.fit.parts import local_spec, shared_spec
from nognet.fit.weights import TensorSpec, weight_spec
from nognet.metrics.statistics import SiteStatistics
from nognet.privacy.policy import stricter
from nognet.secagg.quantise import TAIL
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import FlatWeights, flat_length
from nognet.wire.records import (
    ARRAYS,
    CONFIG,
    EvaluateReply,
    EvaluateTask,
    JoinReply,
    JoinTask,
    MaskedTrainReply,
    MaskedTrainTask,
    SecureReply,
    SecureTask,
    ShareReply,
    TrainReply,
    TrainTask,
    content_bytes,
)
from nognet.wire.records.secure_rows import Step
from nognet_client.masking.noise import word_of
from nognet_client.personal.state import KEPT_ROUNDS
from nognet_client.reply_cache import KEPT_REPLIES
from nognet_client.site import software_versions

_TOKEN = "00" * 16
_SHORT_STEPS: tuple[Step, ...] = ("keys", "shares", "agree", "reveal")


@dataclass(frozen=True)
class Traffic:
    """Payload of one kind of message in bytes: to the site, and back."""

    down: int
    up: int

    def __add__(self, other: Traffic) -> Traffic:
        """Add up."""
        return Traffic(self.down + other.down, self.up + other.up)

    def times(self, number: int) -> Traffic:
        """The traffic of so many alike."""
        return Traffic(self.down * number, self.up * number)


class Messages:
    """A study's messages, empty but of their real size."""

    def __init__(
        self,
        study: StudyConfig,
        site: SiteConfig,
        prepared: PreparedSite,
        seen: SiteStatistics | None,
    ) -> None:
        """Take what the messages are made of; `seen` are statistics of any pairs."""
        self.study, self.site, self.prepared, self.seen = study, site.name, prepared, seen
        self._sites = study.federation.sites_awaited
        self.private = stricter(study.privacy, site.privacy) is not None
        self.study_json, self.contract = study.for_sites(), contract(study)
        self.contract_hash = contract_hash(self.contract)
        self.weights: FlatWeights = np.zeros(flat_length(shared_spec(study)), np.float32)

    def joining(self) -> Traffic:
        """Of joining once."""
        task = JoinTask(self.study_json, self.contract, _TOKEN)
        reply = JoinReply(self.site, software_versions(), self.contract, self.prepared.counts())
        return Traffic(content_bytes(task.to_content()), content_bytes(reply.to_content()))

    def rounds(self) -> Traffic:
        """Of all rounds, validation included."""
        later = self.training(2).times(self.study.rounds - 1)
        return self.training(1) + later + self.evaluation().times(self.study.rounds)

    def training(self, round_number: int) -> Traffic:
        """Of one round of training; SCAFFOLD has nothing to correct in the first."""
        strategy, private = self.study.strategy, self.private
        correction = self.weights if strategy.sends_control and round_number > 1 else None
        task = TrainTask(
            round_number, self.study_json, self.contract_hash, _TOKEN, self.weights, correction
        )
        if self.study.secure_aggregation is not None:
            return self._masked_training(task)
        arrays, config = task.to_records()
        reply = TrainReply(
            site=self.site,
            round_number=round_number,
            weights=self.weights,
            n_pairs=1,
            n_patients=1,
            steps=1,
            mean_loss=None if private else 1.0,
            seconds=1.0,
            epsilon=1.0 if private else None,
            delta=1.0 if private else None,
            start_loss=1.0 if strategy.sends_start_loss else None,
            control=self.weights if strategy.sends_control else None,
        )
        down = content_bytes(RecordDict({ARRAYS: arrays, CONFIG: config}))
        return Traffic(down, content_bytes(reply.to_content()))

    def _masked_training(self, task: TrainTask) -> Traffic:
        """Of one round whose update is masked; keys and shares, some kB a site, are left out."""
        number, word = task.round_number, word_of(self.study, self._sites)
        words = np.zeros(self.weights.size + TAIL, word)
        epsilon = 1.0 if self.private else None
        reply = MaskedTrainReply(self.site, number, _TOKEN, words, 1.0, epsilon, epsilon)
        total = Traffic(
            content_bytes(MaskedTrainTask(task, _TOKEN, {}).to_content()),
            content_bytes(reply.to_content()),
        )
        for step in _SHORT_STEPS:
            asked = SecureTask(
                step, number, self.study_json, self.contract_hash, _TOKEN, _TOKEN, {}
            )
            given = SecureReply(self.site, step, number, _TOKEN, {})
            total += Traffic(content_bytes(asked.to_content()), content_bytes(given.to_content()))
        return total

    def evaluation(self) -> Traffic:
        """Of one evaluation."""
        task = EvaluateTask(
            1, "validation", self.study_json, self.contract_hash, _TOKEN, self.weights
        )
        down = content_bytes(task.to_content())
        if self.seen is None:
            return Traffic(down, 0)
        reply = EvaluateReply(self.site, 1, "validation", self.seen.to_flat(), 1.0)
        return Traffic(down, content_bytes(reply.to_content()))

    def sharing(self, visitors: int) -> Traffic:
        """Of this site's own model on its way to others, and of so many that come to visit."""
        everything = np.zeros(flat_length(weight_spec(self.study.network)), np.float32)
        own = content_bytes(ShareReply(self.site, 1, everything).to_content())
        one = self.evaluation()
        visits = Traffic(one.down - self.weights.nbytes + everything.nbytes, one.up)
        return Traffic(0, own) + visits.times(visitors)


def kept_replies_bytes(messages: Messages) -> int:
    """Bound the replies that a run keeps at the site, in bytes."""
    return KEPT_REPLIES * max(messages.training(1).up, messages.evaluation().up)


def personal_bytes(study: StudyConfig) -> int:
    """Bound the models of its own that a site keeps of a run, in bytes."""
    wanted, whole = study.personalisation, _bytes_of(weight_spec(study.network))
    size = study.rounds * _bytes_of(local_spec(study))
    size += KEPT_ROUNDS * whole * (wanted.ditto_lambda is not None)
    size += KEPT_ROUNDS * whole * (wanted.cross_site == "local")
    return size + whole * wanted.is_on


def folder_bytes(folder: Path) -> int:
    """Sum the sizes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _bytes_of(spec: tuple[TensorSpec, ...]) -> int:
    return 4 * sum(math.prod(tensor.shape) for tensor in spec)
