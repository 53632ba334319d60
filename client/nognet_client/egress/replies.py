"""What each reply may hold, and what its receipt says: from the task, the study and the site."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from nognet.config import SiteConfig, StudyConfig, parse_study_json
from nognet.fit.evaluate import COPY, FEDERATED, ISOTROPIC, PERSONALISED, VISITING
from nognet.fit.parts import shared_spec
from nognet.fit.weights import initial_weights, weight_spec
from nognet.metrics.statistics import SiteStatistics
from nognet.metrics.withholding import Limits, counts_told, names_withheld
from nognet.privacy.policy import stricter
from nognet.wire.contract import contract, contract_json
from nognet.wire.fields import MIN_PATIENTS, WITHHELD, flat_counts
from nognet.wire.flat import flat_length, pack
from nognet.wire.records import (
    ROUND_KEY,
    EvaluateReply,
    EvaluateTask,
    JoinReply,
    JoinTask,
    ShareReply,
    ShareTask,
    TrainReply,
    TrainTask,
)
from nognet_client.egress.counts import lets_out_loss, n_patients, released_counts
from nognet_client.egress.forms import Form, NumberForm, StatisticsForm, VectorForm
from nognet_client.egress.receipt import About, Facts
from nognet_client.egress.release import Outgoing
from nognet_client.egress.spending import spending_of
from nognet_client.egress.updates import UpdateFacts, check_control, check_model, check_update
from nognet_client.site import Site, software_versions

_OWN = frozenset({FEDERATED, PERSONALISED, COPY, ISOTROPIC})
_MOST = 10**9
UpdateCheck = Callable[[TrainTask, TrainReply, StudyConfig, SiteConfig], UpdateFacts]
"""`checked_update`, or what a rehearsal of hostile sites does instead."""
_SECONDS = NumberForm(0.0, 1e9)
_ANY_LOSS = NumberForm(-1e12, 1e12)
"""A loss has no natural bounds; it is finite, and there is none under differential privacy."""


def checked_update(
    task: TrainTask, reply: TrainReply, study: StudyConfig, site: SiteConfig
) -> UpdateFacts:
    """Check a reply's plain weights against those received; to be done before anything masks them.

    Raises:
        EgressError: they may not leave.
    """
    spec = shared_spec(study)
    facts = check_update(reply.weights, task.weights, spec, site.egress.max_update_norm)
    if reply.control is None:
        return facts
    control = check_control(
        reply.control,
        spec,
        update_limit=facts.limit,
        learning_rate=study.training.learning_rate,
        steps=study.training.steps_per_round,
    )
    return replace(facts, control=control)


def of_joining(task: JoinTask, reply: JoinReply, site: Site, faults: str = "") -> Outgoing:
    """Prepare a joining reply to leave; `faults` are a rehearsal's."""
    config, prepared = site.config, site.prepared
    study = parse_study_json(task.study_json)
    counts = flat_counts(released_counts(prepared, config.egress.min_patients))
    allowed = {**counts, MIN_PATIENTS: config.egress.min_patients}
    form = Form(
        texts={
            "site": config.name,
            "versions": json.dumps(software_versions(faults), sort_keys=True),
            "contract": contract_json(contract(study, roi=prepared.roi)),
            "shares-models": config.share_models,
        },
        numbers={key: NumberForm.only(value) for key, value in allowed.items()},
    )
    withheld = tuple(key for key in counts if key.endswith(WITHHELD))
    known = {key: value for key, value in counts.items() if key not in withheld}
    facts = Facts(counts=known, withheld=withheld)
    return Outgoing(reply.to_content(), form, About("join", task.run_token), facts)


def of_training(
    task: TrainTask, reply: TrainReply, site: Site, study: StudyConfig, update: UpdateFacts
) -> Outgoing:
    """Prepare a training reply to leave.

    Args:
        task: That it answers.
        reply: As it will be sent; its vectors may be masked by now.
        site: Whose reply it is.
        study: Of the task.
        update: What `checked_update` found of the plain one.

    Raises:
        EgressError, PrivacyError: as `spending_of`.
    """
    length = VectorForm(flat_length(shared_spec(study)))
    counts = {
        "n-pairs": len(site.prepared.records("train")),
        "n-patients": n_patients(site.prepared, "train"),
    }
    numbers = {key: NumberForm.only(value) for key, value in counts.items()}
    numbers |= {"steps": NumberForm(0, _MOST, whole=True), "seconds": _SECONDS}
    private = stricter(study.privacy, site.config.privacy) is not None
    if not private and lets_out_loss(site, study):
        numbers["loss"] = _ANY_LOSS
    spending = spending_of(task, reply, site, study)
    numbers |= spending.numbers
    if study.strategy.sends_start_loss:
        numbers["start-loss"] = _ANY_LOSS
    form = Form(
        texts={"site": site.config.name, ROUND_KEY: task.round_number},
        vectors={
            "weights": length,
            **({"control": length} if study.strategy.sends_control else {}),
        },
        numbers=numbers,
    )
    facts = Facts(
        counts,
        epsilon=reply.epsilon,
        epsilon_charged=spending.charged,
        delta=reply.delta,
        update=update,
    )
    return Outgoing(
        reply.to_content(), form, About("train", task.run_token, task.round_number), facts
    )


def of_evaluation(task: EvaluateTask, reply: EvaluateReply, site: Site, limits: Limits) -> Outgoing:
    """Prepare the statistics of a split to leave.

    Args:
        task: That it answers.
        reply: As it will be sent.
        site: Whose reply it is.
        limits: What of the split may leave.
    """
    texts: dict[str, str | int | bool] = {
        "site": site.config.name,
        ROUND_KEY: task.round_number,
        "split": task.split,
    }
    kind, predictors = f"evaluate-{task.split}", _OWN
    if task.model_of is not None:
        texts["model-of"] = task.model_of
        kind, predictors = f"{kind}-of-{task.model_of}", frozenset({VISITING})
    form = Form(texts, numbers={"seconds": _SECONDS}, statistics=StatisticsForm(predictors, limits))
    told = SiteStatistics.from_flat(reply.statistics)
    facts = Facts(
        counts={f"{task.split}|patients": n_patients(site.prepared, task.split)},
        withheld=tuple(names_withheld(told)),
        figures=counts_told(told),
    )
    return Outgoing(reply.to_content(), form, About(kind, task.run_token, task.round_number), facts)


def of_sharing(task: ShareTask, reply: ShareReply, site: Site) -> Outgoing:
    """Prepare a site's own model to leave, as it was agreed that it may.

    Raises:
        EgressError: it is not finite, or too long.
    """
    study = parse_study_json(task.study_json)
    spec = weight_spec(study.network)
    first = pack(initial_weights(study.network, study.seed), spec)
    form = Form(
        texts={"site": site.config.name, ROUND_KEY: task.round_number},
        vectors={"weights": VectorForm(flat_length(spec))},
    )
    facts = Facts(model=check_model(reply.weights, first, spec))
    return Outgoing(
        reply.to_content(), form, About("share", task.run_token, task.round_number), facts
    )
