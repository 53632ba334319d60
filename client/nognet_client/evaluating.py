"""The site's side of evaluating, and of giving its model to visit others. Task in, reply out."""

from __future__ import annotations

import logging
import time

from nognet.config import StudyConfig
from nognet.fit.evaluate import FEDERATED, PERSONALISED, VISITING
from nognet.fit.weights import weight_spec
from nognet.metrics.definitions import DEFINITIONS
from nognet.metrics.statistics import SiteStatistics
from nognet.metrics.withholding import withhold
from nognet.wire.flat import unpack
from nognet.wire.records import EvaluateReply, EvaluateTask, ShareReply, ShareTask
from nognet_client.consent import door
from nognet_client.egress.limits import limits_of
from nognet_client.personal.model import OwnModel, check_shares
from nognet_client.reply_cache import ReplyCache, task_digest
from nognet_client.site import Site
from nognet_client.tasks import Work, agreed_study, request_of

_log = logging.getLogger("nognet.client")
_TOLD = ("dsc", "psnr", "volume_error")


def evaluate(task: EvaluateTask, site: Site, work: Work) -> EvaluateReply:
    """Evaluate the global weights, or another site's model, on a split of the site's own patients.

    What may not leave of the figures is withheld already in what is kept and given.

    Raises:
        ContractError: the study's numbers mean something else than the site's.
        ConfigError: another site's model visits, but study or site don't agree to that.
        EgressError: no figures of the split may leave.
        ConsentError: the evaluation is outside what the site accepts; or the site has made its own
            model in this run already, of another task.
    """
    study = agreed_study(task, site)
    asked = request_of(task, study, site)
    door.check_evaluating(asked, task)
    if task.model_of is not None:
        check_shares(study, site.config)
    limits = limits_of(site, study, task.split)
    if task.personalise:
        door.begin_own_model(asked, task_digest(task))
    cache, digest = ReplyCache(site.config.state), task_digest(task, *site.facts)
    kept = cache.find(task, digest, EvaluateReply)
    if kept is not None:
        return kept
    door.begin(asked, "evaluations", digest)
    started = time.perf_counter()
    found = _statistics(study, task, site, work)
    door.end(asked, "evaluations")
    if PERSONALISED in limits.without:
        _tell_own(found, site.config.name)
    reply = EvaluateReply(
        site=site.config.name,
        round_number=task.round_number,
        split=task.split,
        statistics=withhold(door.permitted(found, site.config.consent), limits).to_flat(),
        seconds=time.perf_counter() - started,
        model_of=task.model_of,
    )
    cache.keep(task, digest, reply)
    return reply


def share(task: ShareTask, site: Site) -> ShareReply:
    """Give the site's own model, where it shares models and the study asks for them.

    Raises:
        ContractError: the study's numbers mean something else than the site's.
        ConfigError: study or site don't agree to that.
        ConsentError: the study is outside what the site accepts.
        WireError: the site has no such model.
    """
    study = agreed_study(task, site)
    door.check_sharing(request_of(task, study, site), task.round_number)
    own = OwnModel(study, site.config, site.prepared, task.run_token)
    weights = own.shareable(task.round_number)
    _log.info("%s: gives its own model to the coordinator, to visit other sites", site.config.name)
    return ShareReply(site.config.name, task.round_number, weights)


def _tell_own(found: SiteStatistics, site: str) -> None:
    """Tell the site what its own model is worth, where that stays here."""
    figures = found.figures()
    if PERSONALISED not in figures:
        return
    own, shared = figures[PERSONALISED], figures[FEDERATED]
    means = ", ".join(
        f"{DEFINITIONS[name].title} {own[name]['mean']:.3f} ({shared[name]['mean']:.3f})"
        for name in _TOLD
        if name in own and own[name]["mean"] is not None
    )
    _log.info(
        "%s: the site's own model (the federated one) on its patients: %s; these figures stay here",
        site,
        means or "no figure is defined",
    )


def _statistics(study: StudyConfig, task: EvaluateTask, site: Site, work: Work) -> SiteStatistics:
    """Evaluate what the task asks for; a visiting model gives its own figures alone."""
    config, prepared = site.config, site.prepared
    if task.model_of is not None:
        visiting = unpack(task.weights, weight_spec(study.network))
        found = work.evaluate(study, config, prepared, visiting, split=task.split)
        return SiteStatistics({VISITING: found.predictors[FEDERATED]})
    own = OwnModel(study, config, prepared, task.run_token)
    federated = own.whole_after(task.weights, task.round_number)
    personal = None
    if task.personalise:
        personal = own.finish(federated, task.round_number)
    return work.evaluate(study, config, prepared, federated, split=task.split, personal=personal)
