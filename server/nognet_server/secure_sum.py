"""A round's training whose updates the coordinator sees as their sum alone.

    keys -> shares -> training, masked -> signatures under who is in the sum -> unmasking

The sites check all that this sends (`nognet.secagg.site_side`): a coordinator that does otherwise
gets nothing. Each site that fails a step is left out by name and reason; below the threshold the
round fails and the run stops, to be resumed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import Message, MessageType

from nognet.config import SecureAggregationConfig
from nognet.errors import FederationError, NognetError, PrivacyError
from nognet.files import write_json_atomic
from nognet.secagg.coordinator_side import Gathered, sum_of, unmask
from nognet.secagg.derivation import agreement_text
from nognet.secagg.keys import Advert, check_adverts, check_signature
from nognet.secagg.quantise import TAIL, Summed, decode
from nognet.secagg.session import NONCE_BYTES, Session
from nognet.secagg.site_state import Revealed
from nognet.wire.flat import flat_length
from nognet.wire.records import (
    SECURE_ACTION,
    MaskedTrainReply,
    MaskedTrainTask,
    Rows,
    TrainReply,
)
from nognet_server.asking import Trained, deliver
from nognet_server.joining import Member
from nognet_server.messages import Envelope
from nognet_server.opening import Run
from nognet_server.phases import tell_phase
from nognet_server.replies import SecureSum, Training
from nognet_server.secure_attempt import Attempt, ask, check_enough, each
from nognet_server.secure_tally import Tally, checked_masked
from nognet_server.state import ServerState

_log = logging.getLogger("nognet.server.secure_sum")
SUM = "secure-sum"
"""The name under which a sum of updates is aggregated as if one site had sent it."""


def ask_to_train_securely(
    run: Run,
    state: ServerState,
    here: Mapping[str, Member],
    asked: SecureAggregationConfig,
    absent: Sequence[str],
) -> Trained:
    """Play a round's training as a secure sum.

    Args:
        run: The run.
        state: Before the round.
        here: Sites to ask.
        asked: The study's secure aggregation.
        absent: Members that are not here; reported as left out.

    Returns:
        Training with one reply: the weighted mean of the updates on the global weights.

    Raises:
        FederationError: a step had fewer sites than the threshold, or the sum can't be made.
    """
    started = time.monotonic()
    tell_phase("training", round_number=state.round_number + 1)
    attempt = Attempt(run, state, _same_as_before(run, state, here), asked, _session(run, state))
    tally = Tally(dict.fromkeys(absent, "offline"))
    tally = replace(
        tally, left_out={**tally.left_out, **dict.fromkeys(set(here) - set(attempt.here), SUM)}
    )
    adverts, tally = _keys(attempt, tally)
    shares, tally = _shares(attempt, adverts, tally)
    masked, tally = _masked(attempt, adverts, shares, tally)
    commitments = {site: rows[site]["commitment"] for site, rows in shares.items()}
    gathered = Gathered(
        attempt.session, adverts, commitments, tuple(sorted(masked)), _subject(state)
    )
    signatures, tally = _agreed(attempt, gathered, tally)
    revealed, tally = _revealed(attempt, gathered, signatures, tally)
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


def _same_as_before(run: Run, state: ServerState, here: Mapping[str, Member]) -> dict[str, Member]:
    """Ask whom an interrupted attempt at this round had in its sum, and nobody else.

    The sites agree to one list of sites a round: two sums that differ by a site would uncover it.

    Raises:
        FederationError: one of them is not here.
    """
    path = run.folder.secure_round
    if not path.is_file():
        return dict(here)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        number, sites = int(before["round"]), [str(site) for site in before["sites"]]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise FederationError(
            f"{path}: damaged ({type(err).__name__}); it says which sites an interrupted round had "
            "in its sum. Restore it; without it the sites refuse any other list",
            code="secure-round",
        ) from err
    if number != state.round_number + 1:
        return dict(here)
    if missing := sorted(set(sites) - set(here)):
        raise FederationError(
            f"round {number} was interrupted while the sum of {', '.join(sites)} was made, and the "
            f"sites give no other sum of it; {', '.join(missing)} not here. Bring them back and "
            f"resume with --resume {run.folder.path}",
            code="secure-other-sites",
        )
    return {site: here[site] for site in sites}


def _keys(attempt: Attempt, tally: Tally) -> tuple[dict[str, Advert], Tally]:
    """Collect signed keys; a site whose keys are not signed is left out here."""
    done = ask(attempt, "keys", {site: {} for site in attempt.here})

    def advert(site: str, rows: Rows) -> Advert:
        row = rows[site]
        found = Advert(site, row["identity"], row["seal"], row["mask"], row["signature"])
        check_adverts(attempt.session, [found], None)
        return found

    adverts, tally = each(attempt, done, "keys", advert, tally)
    check_enough(attempt, "gave keys", adverts, len(adverts), tally)
    return adverts, tally


def _shares(
    attempt: Attempt, adverts: Mapping[str, Advert], tally: Tally
) -> tuple[dict[str, Rows], Tally]:
    """Show the keys to all, and collect sealed shares for each other and a commitment."""
    shown: Rows = {
        site: {
            "identity": item.identity,
            "seal": item.seal_key,
            "mask": item.mask_key,
            "signature": item.signature,
        }
        for site, item in adverts.items()
    }
    done = ask(attempt, "shares", dict.fromkeys(adverts, shown))

    def complete(site: str, rows: Rows) -> Rows:
        columns = {
            other: frozenset({"commitment" if other == site else "sealed"}) for other in adverts
        }
        if {other: frozenset(row) for other, row in rows.items()} != columns:
            raise PrivacyError("shares are missing", code="secure-shares")
        return rows

    shares, tally = each(attempt, done, "shares", complete, tally)
    check_enough(attempt, "shared", shares, len(adverts), tally)
    return shares, tally


def _masked(
    attempt: Attempt,
    adverts: Mapping[str, Advert],
    shares: Mapping[str, Rows],
    tally: Tally,
) -> tuple[dict[str, MaskedTrainReply], Tally]:
    """Hand each site the shares for it, let it train, and take its masked update."""
    run, number = attempt.run, attempt.session.round_number
    kind = f"{MessageType.TRAIN}.{SECURE_ACTION}"
    envelopes = []
    for site in shares:
        rows = {
            other: {"sealed": shares[other][site]["sealed"]} for other in shares if other != site
        }
        content = MaskedTrainTask(attempt.task, attempt.session.nonce, rows).to_content()
        envelopes.append(Envelope(site, Message(content, attempt.here[site].node_id, kind)))
    _log.info(
        "round %d of %d: training at %s, summed securely",
        number,
        run.study.rounds,
        ", ".join(sorted(shares)),
    )
    done = deliver(run, envelopes, f"round {number}", "train")
    code, length = attempt.code(len(adverts)), flat_length(run.spec) + TAIL
    masked: dict[str, MaskedTrainReply] = {}
    for delivery in done.deliveries:
        tally = tally.trained(delivery)
        try:
            masked[delivery.site] = checked_masked(delivery, attempt.session, length, code.word)
        except NognetError as err:
            tally = tally.without(delivery, err, f"round {number}: training")
    check_enough(attempt, "trained", masked, len(adverts), tally)
    return masked, tally


def _agreed(attempt: Attempt, gathered: Gathered, tally: Tally) -> tuple[dict[str, bytes], Tally]:
    """Let the sites of the sum sign who is in it; what is asked is noted first, for a resume."""
    number, survivors = attempt.session.round_number, gathered.survivors
    write_json_atomic(attempt.run.folder.secure_round, {"round": number, "sites": list(survivors)})
    rows: Rows = {site: {} for site in survivors}
    done = ask(attempt, "agree", dict.fromkeys(survivors, rows))
    text = agreement_text(gathered.session, gathered.adverts, gathered.members, survivors)

    def signature(site: str, rows: Rows) -> bytes:
        found = rows[site]["signature"]
        check_signature(site, gathered.adverts[site].identity, found, text)
        return found

    signatures, tally = each(attempt, done, "agree", signature, tally)
    check_enough(attempt, "agreed", signatures, len(gathered.adverts), tally)
    return signatures, tally


def _revealed(
    attempt: Attempt, gathered: Gathered, signatures: Mapping[str, bytes], tally: Tally
) -> tuple[dict[str, Revealed], Tally]:
    """Show all signatures, and collect a share of each site's seed or key."""
    rows: Rows = {site: {"signature": signature} for site, signature in signatures.items()}
    done = ask(attempt, "reveal", dict.fromkeys(signatures, rows))

    def shares(_: str, rows: Rows) -> Revealed:
        found = Revealed(
            {name: row["seed"] for name, row in rows.items() if "seed" in row},
            {name: row["key"] for name, row in rows.items() if "key" in row},
        )
        wanted = (set(gathered.survivors), set(gathered.dropped))
        if (set(found.seeds), set(found.keys)) != wanted:
            raise PrivacyError("shares are missing", code="secure-shares")
        return found

    revealed, tally = each(attempt, done, "reveal", shares, tally)
    check_enough(attempt, "gave shares", revealed, len(gathered.adverts), tally)
    return revealed, tally


def _summed(
    attempt: Attempt,
    gathered: Gathered,
    masked: Mapping[str, MaskedTrainReply],
    revealed: Mapping[str, Revealed],
) -> Summed:
    try:
        total = sum_of({site: reply.words for site, reply in masked.items()})
        words = unmask(gathered, total, revealed, attempt.rules)
        return decode(words, attempt.code(len(gathered.adverts)), sites=len(masked))
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
        n_pairs=counts.pairs,
        n_patients=counts.patients,
        steps=0,
        mean_loss=None,
        seconds=max(item.seconds for item in masked.values()),
    )
    left_out = {site: why for site, why in tally.left_out.items() if site not in masked}
    return Training(
        (reply,),
        left_out,
        faulty=tally.faulty,
        traffic=tally.traffic,
        summed=SecureSum(dict(masked), counts, seconds),
    )
