"""Models visit: each sharing site's own model on the test patients of every sharing site.

Models travel through the coordinator, data doesn't. A site takes part only where its own site.yaml
says so, and checks that itself; whatever goes wrong here leaves a gap and never ends a run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flwr.app import Message, MessageType

from nognet.errors import WireError
from nognet.fit.evaluate import VISITING
from nognet.fit.weights import weight_spec
from nognet.metrics.statistics import SiteStatistics
from nognet.wire.flat import FlatWeights, flat_length
from nognet.wire.records import SHARE_ACTION, EvaluateTask, ShareReply, ShareTask
from nognet_server.roster import Member
from nognet_server.rounds.asking import deliver
from nognet_server.rounds.messages import Delivery, Envelope
from nognet_server.rounds.replies import check_evaluation
from nognet_server.runs.metrics_document import Visits
from nognet_server.runs.opening import Run

_log = logging.getLogger("nognet.server.cross_site")
NOT_SHARED = "not-shared"
"""Reason of a site whose site.yaml doesn't say `share_models: true`."""


def let_models_visit(run: Run, here: Mapping[str, Member], *, round_number: int) -> Visits:
    """Collect the sharing sites' models, and evaluate each at every sharing site.

    Args:
        run: The run; nothing of it is changed.
        here: Sites that are online.
        round_number: The chosen round.
    """
    sharing = {name: member for name, member in here.items() if member.shares_models}
    absent = {name: NOT_SHARED for name in here if name not in sharing}
    _log.info("models visit: %s share theirs", ", ".join(sharing) or "no sites")
    models, without = _collect(run, sharing, round_number)
    absent |= without
    statistics = {}
    for model_of in sorted(models):
        found, missing = _visit(run, sharing, round_number, model_of, models[model_of])
        statistics[model_of] = found
        absent |= {site: reason for site, reason in missing.items() if site not in absent}
    return Visits(statistics, dict(sorted(absent.items())))


def _collect(
    run: Run, sharing: Mapping[str, Member], round_number: int
) -> tuple[dict[str, FlatWeights], dict[str, str]]:
    """Ask for the models; a site without a usable one is named with the reason."""
    identity, length = run.identity, flat_length(weight_spec(run.study.network))
    task = ShareTask(
        round_number, identity.study_json, identity.contract_hash, identity.run_token
    ).to_content()
    kind = f"{MessageType.QUERY}.{SHARE_ACTION}"
    envelopes = [Envelope(n, Message(task, m.node_id, kind)) for n, m in sharing.items()]
    models: dict[str, FlatWeights] = {}
    absent: dict[str, str] = {}
    for delivery in deliver(run, envelopes, f"round {round_number}", "share").deliveries:
        try:
            models[delivery.site] = _model_in(delivery, round_number, length)
        except WireError as err:
            absent[delivery.site] = delivery.reason or err.public_code
            _log.warning("%s gave no model: %s", delivery.site, absent[delivery.site])
    return models, absent


def _model_in(delivery: Delivery, round_number: int, length: int) -> FlatWeights:
    if delivery.content is None:
        raise WireError("there is no reply", code="no-reply")
    reply = ShareReply.from_content(delivery.content, length=length)
    if (reply.site, reply.round_number) != (delivery.site, round_number):
        raise WireError(
            f"the reply is of {reply.site} and round {reply.round_number}, expected "
            f"{delivery.site} and {round_number}",
            code="site",
        )
    return reply.weights


def _visit(
    run: Run,
    hosts: Mapping[str, Member],
    round_number: int,
    model_of: str,
    weights: FlatWeights,
) -> tuple[dict[str, SiteStatistics], dict[str, str]]:
    """Evaluate one site's model at all hosts; give the figures, and who gave none and why."""
    content = EvaluateTask(
        round_number=round_number,
        split="test",
        study_json=run.identity.study_json,
        contract_hash=run.identity.contract_hash,
        run_token=run.identity.run_token,
        weights=weights,
        model_of=model_of,
    ).to_content()
    envelopes = [
        Envelope(name, Message(content, member.node_id, MessageType.EVALUATE))
        for name, member in hosts.items()
    ]
    done = deliver(run, envelopes, f"model of {model_of}", "evaluate on test")
    found = check_evaluation(
        done.deliveries, split="test", round_number=round_number, model_of=model_of
    )
    usable = {site: s for site, s in found.statistics.items() if set(s.predictors) == {VISITING}}
    odd = {site: "WireError:predictors" for site in found.statistics if site not in usable}
    return usable, {**found.left_out, **odd}
