"""A forecast as a table for people and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any

from nognet.report.numbers import bytes_text, number, seconds_text
from nognet_client.forecast.outlook import Epsilon, Outlook
from nognet_client.forecast.refusals import Refusal
from nognet_client.forecast.sizes import Traffic

Row = tuple[str, str]


def document(outlook: Outlook) -> dict[str, Any]:
    """Give a forecast as JSON values; seconds and bytes."""
    measured = {k: v for k, v in asdict(outlook.measured).items() if k != "statistics"}
    return {
        "study": outlook.study.name,
        "study_sha256": outlook.request.digest,
        "contract_hash": outlook.request.contract_hash,
        "site": outlook.site.name,
        "rounds": outlook.study.rounds,
        "counts": outlook.prepared.counts(),
        "measured": measured,
        "compute": asdict(outlook.compute),
        "traffic": {
            "training_round": asdict(outlook.training),
            "evaluation_round": asdict(outlook.evaluation),
            "rounds": asdict(outlook.rounds),
            "total": asdict(outlook.total),
        },
        "disk": asdict(outlook.disk),
        "privacy": None if outlook.epsilon is None else asdict(outlook.epsilon),
        "consent": {
            "given": outlook.site.consent is not None,
            "declined": [{**asdict(o), "words": o.words} for o in outlook.objections],
        },
        "accepted": outlook.is_accepted,
    }


def table(outlook: Outlook) -> str:
    """Give a forecast as lines for a terminal."""
    sections = (
        ("study", _study(outlook)),
        ("computation", _computation(outlook)),
        ("traffic, without what TLS and HTTP add", _traffic(outlook)),
        ("memory", _memory(outlook)),
        ("disk", _disk(outlook)),
        ("privacy of patients", _privacy(outlook.epsilon)),
        ("consent", _consent(outlook)),
    )
    blocks = (
        (title, *(f"  {name:24} {value}" for name, value in rows)) for title, rows in sections
    )
    return "\n\n".join("\n".join(block) for block in blocks)


def _study(outlook: Outlook) -> Iterator[Row]:
    study, prepared = outlook.study, outlook.prepared
    training = study.training
    yield "name", study.name
    yield "sha256", outlook.request.digest
    yield "contract hash", outlook.request.contract_hash
    steps = f"{training.steps_per_round} steps of {training.batch_size}"
    yield "asks for", f"{study.rounds} rounds of {steps}, strategy {study.strategy.name}"
    counts = prepared.counts()
    parts = (f"{c['pairs']} pairs of {c['patients']} to {split}" for split, c in counts.items())
    yield "patients here", ", ".join(parts)


def _computation(outlook: Outlook) -> Iterator[Row]:
    compute, measured = outlook.compute, outlook.measured
    yield "measured on", f"{measured.device}: {measured.step_s:.3g} s a step"
    yield "a round's training", seconds_text(compute.training_s)
    yield "a round's validation", seconds_text(compute.evaluation_s)
    yield "at the end", seconds_text(compute.end_s)
    hours = number(compute.total_s / 3600, 2)
    yield "in all", f"{seconds_text(compute.total_s)} ({hours} hours), besides waiting for others"
    consent = outlook.request.consent
    if consent.open_hours is not None:
        begin, end = (datetime.combine(date.min, clock) for clock in consent.open_hours)
        open_s = ((end - begin) % timedelta(days=1)).total_seconds()
        yield "within the hours", f"{math.ceil(compute.total_s / open_s)} x {consent.hours}"


def _traffic(outlook: Outlook) -> Iterator[Row]:
    rounds = outlook.study.rounds
    yield "a round's training", _both(outlook.training)
    yield "a round's validation", _both(outlook.evaluation)
    yield f"in all ({rounds} rounds)", _both(outlook.total)


def _both(traffic: Traffic) -> str:
    return f"{bytes_text(traffic.down)} down, {bytes_text(traffic.up)} up"


def _memory(outlook: Outlook) -> Iterator[Row]:
    measured = outlook.measured
    if measured.gpu_bytes is not None:
        yield "GPU, peak", f"{bytes_text(measured.gpu_bytes)} (reserved by torch)"
    else:
        yield "GPU, peak", f"none: the device is the {measured.device}"
    yield "process, peak", f"{bytes_text(measured.process_bytes)} (resident set)"


def _disk(outlook: Outlook) -> Iterator[Row]:
    disk = outlook.disk
    yield "prepared pairs", bytes_text(disk.cache)
    yield "kept replies, at most", bytes_text(disk.kept_replies)
    yield "own models, at most", bytes_text(disk.own_models)
    yield "free there", bytes_text(disk.free)


def _privacy(epsilon: Epsilon | None) -> Iterator[Row]:
    if epsilon is None:
        yield "none", "neither study nor site asks for it; epsilon has no bound"
        return
    noise = f"multiplier {epsilon.noise_multiplier:g}, clip norm {epsilon.clip_norm:g}"
    yield "noise", f"{noise} (the stricter of study and site)"
    yield "steps", f"{epsilon.steps}, each with a patient by a chance of {epsilon.sample_rate:.4g}"
    yield "epsilon of the study", f"{epsilon.study:.3f} at delta {epsilon.delta:g}"
    if epsilon.consent_limit is not None:
        counted = f"{epsilon.consent_epsilon:.3f} at delta {epsilon.consent_delta:g}"
        yield "as consent counts it", f"{counted} (max_epsilon {epsilon.consent_limit:g})"
    yield "spent before", f"{epsilon.before:.3f}"
    limit = "no limit" if epsilon.limit is None else f"limit {epsilon.limit:g}"
    yield "spent after", f"{epsilon.after:.3f} ({limit})"
    if epsilon.unlimited is not None:
        yield "WARNING", epsilon.unlimited
    if epsilon.limit is not None and epsilon.after > epsilon.limit:
        yield "REFUSED", f"max_epsilon holds {epsilon.rounds_within} of the rounds, not all"


def _consent(outlook: Outlook) -> Iterator[Row]:
    if outlook.site.consent is None:
        yield "none", "site.yaml has no `consent:`; any study is accepted"
    for objection in outlook.objections:
        what = "REFUSED" if isinstance(objection, Refusal) else "DECLINED"
        yield what, f"{objection.words} [{objection.code}]"
    if outlook.is_accepted:
        yield "verdict", "this site would take part"
    else:
        yield "verdict", "this site would NOT take part in all of it, as it is set now"
