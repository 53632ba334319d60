"""A site's answers in a secure sum: four short steps, and training whose update leaves masked.

What is asked is checked and computed by `nognet.secagg.site_side`; here the site's keys, its disk
and its training are put to it. Each state is on disk before what it made goes out, so a site that
was killed at any point answers the same message alike.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nognet.config import (
    SecureAggregationConfig,
    SiteConfig,
    StudyConfig,
    parse_study_json,
)
from nognet.errors import PrivacyError
from nognet.fit.parts import shared_spec
from nognet.secagg import site_side
from nognet.secagg.keys import Advert, derived
from nognet.secagg.masks import Words
from nognet.secagg.quantise import Code, Counts, encode, shortened
from nognet.secagg.session import Rules, Session
from nognet.secagg.site_state import SiteState
from nognet.wire.flat import flat_length
from nognet.wire.records import (
    MaskedTrainReply,
    MaskedTrainTask,
    Rows,
    SecureReply,
    SecureTask,
    TrainReply,
    TrainTask,
)
from nognet_client import consent
from nognet_client.egress.gate import UpdateFacts
from nognet_client.egress.replies import UpdateCheck
from nognet_client.masking_keys import peers_of, signing_key
from nognet_client.masking_state import MaskingState
from nognet_client.site import Site
from nognet_client.tasks import Work, agreed_study, request_of, train

_log = logging.getLogger("nognet.client.masking")


@dataclass(frozen=True)
class _Part:
    """This site's part in a session: what it needs at every step."""

    rules: Rules
    session: Session
    kept: MaskingState
    site: SiteConfig

    def state(self) -> SiteState:
        """Read the state of the session.

        Raises:
            PrivacyError: this site has begun no such session.
        """
        state = self.kept.find(self.session)
        if state is None:
            raise PrivacyError(
                f"{self.site.name} has no keys of this session of a secure sum: it did not begin, "
                "or another one began since",
                code="secure-no-session",
            )
        return state


@dataclass(frozen=True)
class Masked:
    """A masked reply, which leaves, and what does not: the plain one, and what the gate found."""

    reply: MaskedTrainReply
    plain: TrainReply
    update: UpdateFacts


def secure_step(task: SecureTask, site: Site) -> SecureReply:
    """Do a short step of a secure sum.

    Raises:
        PrivacyError: what is asked could uncover this site's update, or is out of order.
        ConsentError: a session begins that is outside what the site accepts.
        ContractError: the study's numbers mean something else than the site's.
        ProvisionError: a key is missing or wrong.
        WireError: what the site kept is damaged.
    """
    study = agreed_study(task, site)
    asked = _asked(study)
    if task.step == "keys":  # what has begun is brought to its end
        consent.check_training(request_of(task, study, site), task.round_number)
    part = _part(asked, site, task, task.session)
    name = site.config.name
    _log.debug("%s: round %d, secure sum: %s", name, task.round_number, task.step)
    steps = {"keys": _keys, "shares": _shares, "agree": _agree, "reveal": _reveal}
    rows = steps[task.step](part, task.rows)
    return SecureReply(name, task.step, task.round_number, task.session, rows)


def masked_train(task: MaskedTrainTask, site: Site, work: Work, check: UpdateCheck) -> Masked:
    """Train a round, check the update, and mask it.

    Raises:
        PrivacyError: as `secure_step`; nothing was trained then.
        EgressError: the plain update may not leave, masked or not.
        ContractError, TrainingError: as `nognet_client.tasks.train`.
    """
    plain_task = task.task
    study = agreed_study(plain_task, site)
    asked = _asked(study)
    part = _part(asked, site, plain_task, task.session)
    incoming = _column(task.rows, "sealed")
    state = part.state()
    site_side.check_incoming(state, incoming, part.rules)
    reply = train(plain_task, site, work)
    update = check(plain_task, reply, study, site.config)
    words = _words(reply, plain_task, study, state)
    subject = hashlib.sha256(np.ascontiguousarray(plain_task.weights).data).digest()
    state, masked = site_side.mask(state, incoming, words, subject, part.rules)
    part.kept.keep(state)
    return Masked(
        MaskedTrainReply(
            site=site.config.name,
            round_number=plain_task.round_number,
            session=task.session,
            words=masked,
            seconds=reply.seconds,
            epsilon=reply.epsilon,
            delta=reply.delta,
        ),
        reply,
        update,
    )


def check_can_sum(study_json: str, site: SiteConfig) -> None:
    """Refuse a study before it starts whose updates this site will not give.

    Raises:
        PrivacyError: the study sums securely and the site has no keys to believe, or the study
            doesn't and the site takes part in nothing else.
        ProvisionError: a key is missing or wrong.
        ConfigError: the study can't be read by this release.
    """
    if parse_study_json(study_json).secure_aggregation is None:
        check_may_leave_unmasked(study_json, site)
        return
    signing_key(site)
    peers_of(site)


def check_may_leave_unmasked(study_json: str, site: SiteConfig) -> None:
    """Refuse to give an update, or a model, in the clear where it is to be masked.

    Raises:
        PrivacyError: the study sums securely, or the site takes part in nothing else.
        ConfigError: the study can't be read by this release.
    """
    study = parse_study_json(study_json)
    if study.secure_aggregation is not None:
        raise PrivacyError(
            f"study '{study.name}' sums updates securely, and the coordinator asks for one in the "
            "clear",
            code="secure-in-clear",
        )
    if site.secure_aggregation is not None and site.secure_aggregation.required:
        raise PrivacyError(
            f"{site.name} takes part in studies with secure_aggregation alone, and '"
            f"{study.name}' has none; secure_aggregation.required: false in site.yaml would "
            "let it",
            code="secure-required",
        )


def code_of(study: StudyConfig, sites: int) -> Code:
    """Say how a study's updates are written as words, where so many sites began."""
    asked = _asked(study)
    return Code(asked.bits, asked.clip_value, asked.max_weight, sites)


def _asked(study: StudyConfig) -> SecureAggregationConfig:
    if study.secure_aggregation is None:
        raise PrivacyError(f"study '{study.name}' has no secure sums", code="secure-not-asked")
    return study.secure_aggregation


def _part(
    asked: SecureAggregationConfig, site: Site, task: SecureTask | TrainTask, nonce: str
) -> _Part:
    study_digest = hashlib.sha256(task.study_json.encode()).hexdigest()
    session = Session(task.run_token, task.round_number, nonce, study_digest)
    kept = MaskingState(site.config.state, task.run_token)
    return _Part(Rules(asked.threshold), session, kept, site.config)


def _keys(part: _Part, _: Rows) -> Rows:
    state = part.kept.find(part.session)
    if state is None:
        peers_of(part.site)  # whoever can't check the others need not begin
        state = site_side.begin(part.session, part.site.name, signing_key(part.site))
        part.kept.begin(state)
    own = state.adverts[part.site.name]
    row = {
        "identity": own.identity,
        "seal": own.seal_key,
        "mask": own.mask_key,
        "signature": own.signature,
    }
    return {own.site: row}


def _shares(part: _Part, rows: Rows) -> Rows:
    adverts = [
        Advert(name, *(_value(row, key) for key in ("identity", "seal", "mask", "signature")))
        for name, row in rows.items()
    ]
    state = site_side.share(part.state(), adverts, part.rules, peers_of(part.site))
    part.kept.keep(state)
    sealed = {name: {"sealed": box} for name, box in state.outgoing.items()}
    return {**sealed, part.site.name: {"commitment": state.commitment}}


def _agree(part: _Part, rows: Rows) -> Rows:
    state, signature = site_side.agree(part.state(), list(rows), signing_key(part.site), part.rules)
    part.kept.agree(state)
    return {part.site.name: {"signature": signature}}


def _reveal(part: _Part, rows: Rows) -> Rows:
    state = site_side.reveal(part.state(), _column(rows, "signature"), part.rules)
    part.kept.keep(state)
    seeds = {name: {"seed": share} for name, share in state.revealed.seeds.items()}
    return {**seeds, **{name: {"key": share} for name, share in state.revealed.keys.items()}}


def _words(reply: TrainReply, task: TrainTask, study: StudyConfig, state: SiteState) -> Words:
    """Write the update of a round as words, and say what of it is lost."""
    asked = _asked(study)
    code = code_of(study, len(state.adverts))
    difference: NDArray[np.float64] = np.subtract(reply.weights, task.weights, dtype=np.float64)
    update, is_long = shortened(difference, asked.clip_norm)
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


def _column(rows: Rows, name: str) -> dict[str, bytes]:
    return {site: _value(row, name) for site, row in rows.items()}


def _value(row: object, name: str) -> bytes:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, bytes):
        raise PrivacyError(f"a row without '{name}' was received", code="secure-form")
    return value
