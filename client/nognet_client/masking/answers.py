"""A site's answers in a secure sum: four short steps, and training whose update leaves masked.

What is asked is checked and computed by `nognet.secagg.site_side`; here the site's keys, its disk
and its training are put to it. Each state is on disk before what it made goes out, so a site that
was killed at any point answers the same message alike.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nognet.config import SiteConfig, StudyConfig
from nognet.errors import PrivacyError
from nognet.secagg import site_side
from nognet.secagg.keys import Advert
from nognet.secagg.session import Rules, Session
from nognet.secagg.site_state import SiteState
from nognet.wire.records import (
    MaskedTrainReply,
    MaskedTrainTask,
    Rows,
    SecureReply,
    SecureTask,
    TrainReply,
    TrainTask,
)
from nognet_client.consent import door
from nognet_client.egress.replies import UpdateCheck
from nognet_client.egress.updates import UpdateFacts
from nognet_client.masking.keys import peers_of, signing_key
from nognet_client.masking.noise import (
    at_own_delta,
    check_has_noise,
    check_may_noise,
    facts_of,
    noise_plan,
    noised_words,
    rules_of,
)
from nognet_client.masking.state import MaskingState
from nognet_client.masking.words import asked_of, update_of, words_of
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
    """A masked reply, which leaves, and what does not: the plain one, and what the gate found.

    `noise` says which noise was added before masking; None where the study has sites add none.
    """

    reply: MaskedTrainReply
    plain: TrainReply
    update: UpdateFacts
    noise: Mapping[str, Any] | None = None


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
    if task.step == "keys":  # what has begun is brought to its end
        door.check_training(request_of(task, study, site), task.round_number)
    part = _part(study, site, task, task.session)
    name = site.config.name
    _log.debug("%s: round %d, secure sum: %s", name, task.round_number, task.step)
    steps = {"keys": _keys, "shares": _shares, "agree": _agree, "reveal": _reveal}
    rows = steps[task.step](part, task.rows)
    return SecureReply(name, task.step, task.round_number, task.session, rows)


def masked_train(task: MaskedTrainTask, site: Site, work: Work, check: UpdateCheck) -> Masked:
    """Train a round, check the update, and mask it.

    Raises:
        PrivacyError: as `secure_step`, or the study has no noise and the site wants it; nothing was
            trained then.
        PrivacyBudgetError: the site gave as many noised updates as its limit lets it.
        EgressError: the plain update may not leave, masked or not.
        ContractError, TrainingError: as `nognet_client.tasks.train`.
    """
    plain_task = task.task
    study = agreed_study(plain_task, site)
    plan = noise_plan(study)
    check_has_noise(study, plan, site.config)
    part = _part(study, site, plain_task, task.session)
    incoming = _column(task.rows, "sealed")
    state = part.state()
    site_side.check_incoming(state, incoming, part.rules)
    if plan is not None:
        check_may_noise(study, plan, state, part.kept, site.config, part.rules)
    reply = train(plain_task, site, work)
    update = check(plain_task, reply, study, site.config)
    noise = None
    if plan is None or plan.share is None:
        words = words_of(reply, plain_task, study, state)
    else:
        words = noised_words(update_of(reply, plain_task), plan, plan.share, state)
        releases = part.kept.note_noised(state.session, plan.noise_multiplier)
        elsewhere = part.kept.noised_elsewhere(state.session)
        noise = facts_of(at_own_delta(plan, site.config), plan.share, releases, elsewhere)
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
        noise,
    )


def _part(study: StudyConfig, site: Site, task: SecureTask | TrainTask, nonce: str) -> _Part:
    study_digest = hashlib.sha256(task.study_json.encode()).hexdigest()
    session = Session(task.run_token, task.round_number, nonce, study_digest)
    kept = MaskingState(site.config.state, task.run_token)
    return _Part(rules_of(study, asked_of(study).threshold), session, kept, site.config)


def _keys(part: _Part, _: Rows) -> Rows:
    state = part.kept.find(part.session)
    if state is None:
        peers_of(part.site)  # whoever can't check the others need not begin
        state = site_side.begin(part.session, part.site.name, signing_key(part.site))
        part.kept.begin(state)
    own = state.adverts[part.site.name]
    return {own.site: own.row()}


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


def _column(rows: Rows, name: str) -> dict[str, bytes]:
    return {site: _value(row, name) for site, row in rows.items()}


def _value(row: object, name: str) -> bytes:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, bytes):
        raise PrivacyError(f"a row without '{name}' was received", code="secure-form")
    return value
