"""The five steps of a secure sum, each asked of all sites that are still in it.

A site that fails a step is left out by name and reason; too few for the threshold end the round.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flwr.app import Message, MessageType

from nognet.errors import NognetError, PrivacyError
from nognet.secagg.coordinator_side import Gathered
from nognet.secagg.derivation import agreement_text
from nognet.secagg.keys import Advert, check_adverts, check_signature
from nognet.secagg.quantise import TAIL
from nognet.secagg.site_state import Revealed
from nognet.wire.flat import flat_length
from nognet.wire.records import (
    SECURE_ACTION,
    MaskedTrainReply,
    MaskedTrainTask,
    Rows,
)
from nognet_server.rounds.asking import deliver
from nognet_server.rounds.messages import Envelope
from nognet_server.secure_sum.attempt import Attempt, ask, check_enough, each
from nognet_server.secure_sum.earlier import note_asked
from nognet_server.secure_sum.tally import Tally, checked_masked

_log = logging.getLogger("nognet.server.secure_sum")


def collect_keys(attempt: Attempt, tally: Tally) -> tuple[dict[str, Advert], Tally]:
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


def collect_shares(
    attempt: Attempt, adverts: Mapping[str, Advert], tally: Tally
) -> tuple[dict[str, Rows], Tally]:
    """Show the keys to all, and collect sealed shares for each other and a commitment."""
    shown: Rows = {site: item.row() for site, item in adverts.items()}
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


def collect_masked(
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


def collect_signatures(
    attempt: Attempt, gathered: Gathered, tally: Tally
) -> tuple[dict[str, bytes], Tally]:
    """Let the sites of the sum sign who is in it; what is asked is noted first, for a resume."""
    number, survivors = attempt.session.round_number, gathered.survivors
    note_asked(attempt.run, number, survivors)
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


def collect_revealed(
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
