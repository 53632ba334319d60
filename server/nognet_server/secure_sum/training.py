"""A round's training whose updates the coordinator sees as their sum alone.

    keys -> shares -> training, masked -> signatures under who is in the sum -> unmasking

The sites check all that this sends (`nognet.secagg.site_side`): a coordinator that does otherwise
gets nothing. Each site that fails a step is left out by name and reason; below the threshold the
round fails and the run stops, to be resumed.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from nognet.config import SecureAggregationConfig
from nognet.errors import FederationError, PrivacyError
from nognet.secagg.coordinator_side import Gathered, sum_of, unmask
from nognet.secagg.noised import NoisedCode, decode_noised
from nognet.secagg.quantise import Summed, decode
from nognet.secagg.session import NONCE_BYTES, Session
from nognet.secagg.site_state import Revealed
from nognet.wire.records import (
    MaskedTrainReply,
    TrainReply,
)
from nognet_server.central_dp.rounds import tell_if_more
from nognet_server.phases import tell_phase
from nognet_server.roster import Member
from nognet_server.rounds.asking import Trained
from nognet_server.rounds.loop import replies_needed
from nognet_server.rounds.replies import SecureSum, Training
from nognet_server.runs.opening import Run
from nognet_server.runs.state import ServerState
from nognet_server.secure_sum.attempt import Attempt
from nognet_server.secure_sum.earlier import same_as_before
from nognet_server.secure_sum.steps import (
    collect_keys,
    collect_masked,
    collect_revealed,
    collect_shares,
    collect_signatures,
)
from nognet_server.secure_sum.tally import Tally

_log = logging.getLogger("nognet.server.secure_sum")
SUM = "secure-sum"
"""The name under which a sum of updates is aggregated as if one site had sent it."""


def ask_to_train_securely(
    run: Run,
    state: ServerState,
    here: Mapping[str, Member],
    asked: SecureAggregationConfig,
    absent: Mapping[str, str],
    *,
    charge: Callable[[], None],
) -> Trained:
    """Play a round's training as a secure sum.

    Args:
        run: The run.
        state: Before the round.
        here: Sites to ask.
        asked: The study's secure aggregation.
        absent: Members that are not here, and why; reported as left out.
        charge: Called before any site gives its masked update; a noised one is spent then.

    Returns:
        Training with one reply: the weighted mean of the updates on the global weights. With none
        where fewer sites trained than the study's quorum wants: no sum is made then.

    Raises:
        FederationError: a step had fewer sites than the threshold, or the sum can't be made.
        PrivacyBudgetError: the round would pass the limit of central privacy.
    """
    started = time.monotonic()
    tell_phase("training", round_number=state.round_number + 1)
    attempt = Attempt(run, state, same_as_before(run, state, here), asked, _session(run, state))
    tally = Tally(dict(absent))
    tally = replace(
        tally, left_out={**tally.left_out, **dict.fromkeys(set(here) - set(attempt.here), SUM)}
    )
    adverts, tally = collect_keys(attempt, tally)
    shares, tally = collect_shares(attempt, adverts, tally)
    charge()
    masked, tally = collect_masked(attempt, adverts, shares, tally)
    if len(masked) < replies_needed(run.study, len(here)):
        # nobody agrees to this sum: who did would refuse the round's next one, of more sites
        return Trained(_unsummed(masked, tally), len(here), {})
    commitments = {site: rows[site]["commitment"] for site, rows in shares.items()}
    gathered = Gathered(
        attempt.session, adverts, commitments, tuple(sorted(masked)), _subject(state)
    )
    signatures, tally = collect_signatures(attempt, gathered, tally)
    revealed, tally = collect_revealed(attempt, gathered, signatures, tally)
    summed = _summed(attempt, gathered, masked, revealed)
    spent = time.monotonic() - started
    trained = max(tally.traffic[site].seconds for site in masked)
    _log.info(
        "round %d: the sum of %d sites' updates; %.1f s of %.1f s were keys, shares and unmasking",
        attempt.session.round_number,
        len(masked),
        spent - trained,
        spent,
    )
    return Trained(_training(attempt, masked, summed, tally, spent - trained), len(here), {})


def _session(run: Run, state: ServerState) -> Session:
    digest = hashlib.sha256(run.identity.study_json.encode()).hexdigest()
    nonce = secrets.token_hex(NONCE_BYTES)
    return Session(run.identity.run_token, state.round_number + 1, nonce, digest)


def _subject(state: ServerState) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(state.weights).data).digest()


def _summed(
    attempt: Attempt,
    gathered: Gathered,
    masked: Mapping[str, MaskedTrainReply],
    revealed: Mapping[str, Revealed],
) -> Summed:
    try:
        total = sum_of({site: reply.words for site, reply in masked.items()})
        words = unmask(gathered, total, revealed, attempt.rules)
        code = attempt.code(len(gathered.adverts))
        if isinstance(code, NoisedCode):
            return decode_noised(words, code, sites=len(masked))
        return decode(words, code, sites=len(masked))
    except PrivacyError as err:
        raise FederationError(
            f"round {attempt.session.round_number}: {err}. Resume with --resume "
            f"{attempt.run.folder.path}",
            code=err.code,
        ) from err


def _training(
    attempt: Attempt,
    masked: Mapping[str, MaskedTrainReply],
    summed: Summed,
    tally: Tally,
    seconds: float,
) -> Training:
    counts = summed.counts
    if attempt.run.central is not None:
        tell_if_more(attempt.run.central, len(masked))
    if counts.clipped or counts.shortened:
        _log.warning(
            "round %d: %d numbers of the updates were beyond secure_aggregation.clip_value and "
            "clipped, %d updates were shortened to clip_norm",
            attempt.session.round_number,
            counts.clipped,
            counts.shortened,
        )
    weights = (attempt.state.weights + summed.mean).astype(np.float32)
    reply = TrainReply(
        site=SUM,
        round_number=attempt.session.round_number,
        weights=weights,
        n_pairs=max(1, counts.pairs),
        n_patients=max(1, counts.patients),
        steps=0,
        mean_loss=None,
        seconds=max(item.seconds for item in masked.values()),
    )
    summed_up = SecureSum(dict(masked), counts, seconds)
    return replace(_unsummed(masked, tally), replies=(reply,), summed=summed_up)


def _unsummed(masked: Mapping[str, MaskedTrainReply], tally: Tally) -> Training:
    """Say who trained for a sum that is not made; their updates stay masked."""
    return Training(
        (),
        {site: why for site, why in tally.left_out.items() if site not in masked},
        faulty=tally.faulty,
        traffic=tally.traffic,
        masked=tuple(sorted(masked)),
    )
