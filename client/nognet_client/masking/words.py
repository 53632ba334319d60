"""An update as the words that are masked, and what of it is lost on the way."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from nognet.config import (
    SecureAggregationConfig,
    StudyConfig,
)
from nognet.errors import PrivacyError
from nognet.fit.parts import shared_spec
from nognet.secagg.keys import derived
from nognet.secagg.masks import Words
from nognet.secagg.quantise import Code, Counts, encode, shortened
from nognet.secagg.site_state import SiteState
from nognet.wire.flat import flat_length
from nognet.wire.records import (
    TrainReply,
    TrainTask,
)

_log = logging.getLogger("nognet.client.masking")


def code_of(study: StudyConfig, sites: int) -> Code:
    """Say how a study's updates are written as words, where so many sites began."""
    asked = asked_of(study)
    return Code(asked.bits, asked.clip_value, asked.max_weight, sites)


def asked_of(study: StudyConfig) -> SecureAggregationConfig:
    """Give what a study says of its secure sums.

    Raises:
        PrivacyError: it has none.
    """
    if study.secure_aggregation is None:
        raise PrivacyError(f"study '{study.name}' has no secure sums", code="secure-not-asked")
    return study.secure_aggregation


def update_of(reply: TrainReply, task: TrainTask) -> NDArray[np.float64]:
    """Say by how much the site moved the weights it was sent, ``(d,)``."""
    difference: NDArray[np.float64] = np.subtract(reply.weights, task.weights, dtype=np.float64)
    return difference


def words_of(reply: TrainReply, task: TrainTask, study: StudyConfig, state: SiteState) -> Words:
    """Write the update of a round as words, and say what of it is lost."""
    asked = asked_of(study)
    code = code_of(study, len(state.adverts))
    update, is_long = shortened(update_of(reply, task), asked.clip_norm)
    weight = {"equal": 1, "pairs": reply.n_pairs, "patients": reply.n_patients}
    counts = Counts(
        weight[study.strategy.counts_by], reply.n_pairs, reply.n_patients, shortened=int(is_long)
    )
    rng = None
    if asked.rounding == "stochastic":  # the same for a message that comes again
        key = derived(state.pair.private, b"rounding", state.session.binding())
        rng = np.random.default_rng(int.from_bytes(key, "big"))
    words, written = encode(update, counts, code, rng)
    _tell_losses(reply, counts, written, asked, flat_length(shared_spec(study)))
    return words


def _tell_losses(
    reply: TrainReply,
    counts: Counts,
    written: Counts,
    asked: SecureAggregationConfig,
    length: int,
) -> None:
    if written.clipped:
        _log.warning(
            "%s: %d of %d numbers of the update are beyond %g and were clipped; a larger "
            "secure_aggregation.clip_value in the study would keep them",
            reply.site,
            written.clipped,
            length,
            asked.clip_value,
        )
    if written.shortened:
        _log.warning("%s: the update was shortened to secure_aggregation.clip_norm", reply.site)
    if written.weight < counts.weight:
        _log.warning(
            "%s: counts as %d, not as %d (secure_aggregation.max_weight)",
            reply.site,
            written.weight,
            counts.weight,
        )
