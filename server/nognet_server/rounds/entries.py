"""A round's entry in `metrics.json`: what each site did, and with what weight it counted."""

from __future__ import annotations

from typing import Any

from nognet.config import StudyConfig
from nognet.wire.records import MaskedTrainReply, TrainReply
from nognet_server.rounds.messages import Delivery, declined_code
from nognet_server.rounds.replies import Evaluation, SecureSum, Training
from nognet_server.strategies import shares_of


def site_entries(
    study: StudyConfig, training: Training, evaluation: Evaluation
) -> dict[str, dict[str, Any]]:
    """Write each site's part in a round; `weight` is its share of the examples that counted."""
    shares = {} if training.summed else shares_of(study, training.replies)
    replies = {} if training.summed else {reply.site: reply for reply in training.replies}
    names = {*training.counted, *training.left_out, *evaluation.statistics, *evaluation.left_out}
    entries: dict[str, dict[str, Any]] = {}
    for site in sorted(names):
        reply = replies.get(site)
        summed = training.summed.sites.get(site) if training.summed else None
        traffic, norm = training.traffic.get(site), training.norms.get(site)
        statistics = evaluation.statistics.get(site)
        entries[site] = {
            "status": _status(reply or summed, training.left_out.get(site)),
            "reason": training.left_out.get(site) or evaluation.left_out.get(site),
            "weight": None if summed else shares[site] if reply else 0.0,
            "train": (
                _train_entry(reply, traffic, norm)
                if reply
                else _summed_entry(summed, traffic)
                if summed
                else None
            ),
            "validation": statistics.figures() if statistics else {},
            "evaluate_seconds": _rounded(evaluation.seconds.get(site)),
            **_evaluate_bytes(evaluation.traffic.get(site)),
        }
    return entries


def _status(reply: TrainReply | MaskedTrainReply | None, reason: str | None) -> str:
    """Tell a site that declined, as is its right, from one that failed."""
    if reply:
        return "ok"
    return "declined" if declined_code(reason) else "left-out"


def _train_entry(reply: TrainReply, traffic: Delivery | None, norm: float | None) -> dict[str, Any]:
    return {
        "loss": reply.mean_loss,
        "seconds": _rounded(reply.seconds),
        "round_trip_seconds": _rounded(traffic.seconds if traffic else None),
        "steps": reply.steps,
        "n_pairs": reply.n_pairs,
        "n_patients": reply.n_patients,
        "epsilon": reply.epsilon,
        "delta": reply.delta,
        "update_norm": norm,
        "bytes_down": traffic.bytes_down if traffic else None,
        "bytes_up": traffic.bytes_up if traffic else None,
    }


def _evaluate_bytes(traffic: Delivery | None) -> dict[str, int | None]:
    return {
        "evaluate_bytes_down": traffic.bytes_down if traffic else None,
        "evaluate_bytes_up": traffic.bytes_up if traffic else None,
    }


def _summed_entry(reply: MaskedTrainReply, traffic: Delivery | None) -> dict[str, Any]:
    """Say what is known of a site whose update was summed securely."""
    return {
        "seconds": _rounded(reply.seconds),
        "round_trip_seconds": _rounded(traffic.seconds if traffic else None),
        "epsilon": reply.epsilon,
        "delta": reply.delta,
        "bytes_down": traffic.bytes_down if traffic else None,
        "bytes_up": traffic.bytes_up if traffic else None,
    }


def sum_entry(summed: SecureSum) -> dict[str, Any]:
    """Write what is known of a secure sum as a whole."""
    counts = summed.counts
    return {
        "sites": len(summed.sites),
        "weight": counts.weight,
        "n_pairs": counts.pairs or None,
        "n_patients": counts.patients or None,
        "numbers_clipped": counts.clipped,
        "updates_shortened": counts.shortened,
        "seconds": _rounded(summed.seconds),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
