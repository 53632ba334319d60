"""The result in plain words, as honest as the figures: also when the model doesn't win."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nognet.report.central import central_sentence
from nognet.report.comparison import (
    ALL_SITES,
    Difference,
    SiteComparison,
    Verdict,
    compare_sites,
    is_alone,
)
from nognet.report.metrics_schema import RunMetrics
from nognet.report.numbers import count, number, signed

_VERDICT_WORDS: dict[Verdict, str] = {
    "better": "better than copying in every headline metric",
    "mixed": "not better than copying in every headline metric",
    "equal": "equal to copying",
    "worse": "worse than copying in every headline metric",
    "unknown": "could not be compared",
}
_HEADLINE_WORDS = "DSC of growing nodules, DSC of all nodules and PSNR"
MOST_NAMED = 5
_STATUS_WORDS = {
    "running": "The run is still going",
    "completed": "The run is complete",
    "failed": "The run failed",
    "interrupted": "The run was interrupted",
}


def verdict_words(verdict: Verdict) -> str:
    """Say a verdict in words."""
    return _VERDICT_WORDS[verdict]


def training_sentence(metrics: RunMetrics) -> str:
    """Say what was trained, where and on how many patients."""
    planned = metrics.study.get("rounds")
    done = len(metrics.rounds)
    of_planned = f" of {planned}" if isinstance(planned, int) and planned != done else ""
    sites = sorted(metrics.sites)
    patients = sum(
        entry.counts["train"].patients or 0
        for entry in metrics.sites.values()
        if "train" in entry.counts
    )
    named = f" ({_listed(sites)})" if len(sites) <= MOST_NAMED else ""
    where = f"{_plural(len(sites), 'site')}{named}" if sites else "no site yet"
    rounds = f"{done}{of_planned} {'round' if done == 1 and not of_planned else 'rounds'}"
    on_patients = f"on {_plural(patients, 'training patient')}"
    if is_alone(metrics):
        return (
            f"MT-NoGNet was trained in {rounds} at {where} alone, {on_patients}. Nothing left it."
        )
    return (
        f"MT-NoGNet was trained in {rounds} of federated learning at {where}, "
        f"{on_patients}. Sites exchanged model weights and summary "
        "statistics only."
    )


def result_sentence(metrics: RunMetrics) -> str:
    """Say whether the federated model beats copying the baseline, where, and by how much."""
    compared = compare_sites(metrics)
    sites = [c for c in compared if c.site != ALL_SITES]
    if metrics.final is None or not sites:
        status = _STATUS_WORDS[metrics.status]
        return f"{status} and has no test results, so nothing can be said of its quality yet."
    patients = _plural(sum(c.n_patients for c in sites), "test patient")
    pairs = _plural(sum(c.n_pairs for c in sites), "pair")
    kind = "local" if is_alone(metrics) else "federated"
    model = f"On {patients} ({pairs} of scans), the {kind} model of round {metrics.final.round}"
    has_total = compared[-1].site == ALL_SITES or len(sites) == 1
    amounts = f" {_amounts(compared[-1])}" if has_total else ""
    return f"{model} {_verdict_clause(sites)}.{amounts}"


def _verdict_clause(sites: Sequence[SiteComparison]) -> str:
    better = [c.site for c in sites if c.verdict == "better"]
    at_all = "at every site" if len(sites) > 1 else "at its site"
    if len(better) == len(sites):
        return f"beats copying the baseline scan {at_all} in {_HEADLINE_WORDS}"
    if better:
        others = [c.site for c in sites if c.verdict != "better"]
        named = f" ({_listed(better)}, not {_listed(others)})" if len(sites) <= MOST_NAMED else ""
        return (
            f"beats copying the baseline scan at {len(better)} of {len(sites)} sites{named} in "
            f"{_HEADLINE_WORDS}"
        )
    if all(c.verdict == "worse" for c in sites):
        return f"is worse than copying the baseline scan {at_all} in {_HEADLINE_WORDS}"
    return f"beats copying the baseline scan at no site in all of {_HEADLINE_WORDS}"


def _amounts(comparison: SiteComparison) -> str:
    """Say the differences to copying, with the pairs behind each."""
    where = "Over all sites" if comparison.site == ALL_SITES else f"At {comparison.site}"
    return f"{where}: {'; '.join(_difference_words(d) for d in comparison.differences)}."


def absence_sentence(metrics: RunMetrics) -> str | None:
    """Name the sites that were refused, or have no test figures, with the public code of why."""
    left_out = metrics.final.left_out if metrics.final is not None else {}
    parts = [
        f"{words}: {_listed([f'{site} ({reason})' for site, reason in sorted(sites.items())])}."
        for words, sites in (
            ("Refused when joining", metrics.refused),
            ("Without test figures", left_out),
        )
        if sites
    ]
    return " ".join(parts) or None


def rehearsal_sentence(metrics: RunMetrics) -> str | None:
    """Say of a rehearsal that it was one, and which sites failed on purpose and how."""
    if metrics.study.get("rehearsal") is not True:
        return None
    told = {site: entry.joined.get("faults") for site, entry in sorted(metrics.sites.items())}
    failing = [f"{site} ({str(kinds).replace('.', ', ')})" for site, kinds in told.items() if kinds]
    who = f"{_listed(failing)} failed on purpose" if failing else "no site failed on purpose"
    return f"A rehearsal: {who}. Its model and figures are no result."


def caution_sentence(comparisons: Sequence[SiteComparison]) -> str | None:
    """Warn where few test patients stand behind a site's figures."""
    few = [c for c in comparisons if c.site != ALL_SITES and c.n_patients < 30]
    if not few:
        return None
    names = [c.site for c in few]
    who = _listed(names) if len(names) <= MOST_NAMED else f"{len(names)} sites"
    return (
        f"{who} {'has' if len(few) == 1 else 'have'} fewer than 30 test patients: a difference "
        "that is small beside the standard deviation may be chance."
    )


def privacy_sentence(metrics: RunMetrics) -> str:
    """Say what differential privacy of patients and of sites cost, or that there was none."""
    spent = {
        site: (part.train.epsilon, part.train.delta)
        for entry in metrics.rounds
        for site, part in entry.sites.items()
        if part.train is not None and part.train.epsilon is not None
    }
    central = central_sentence(metrics)
    if not spent:
        return central or "Trained without differential privacy."
    epsilon, delta = max(spent.values(), key=lambda pair: pair[0] or 0.0)
    at_delta = "" if delta is None else f" at delta {delta:g}"
    whose = "" if len(spent) == len(metrics.sites) else f" ({_listed(sorted(spent))} only)"
    open_ = _without_noise(metrics)
    return (
        f"Patient-level differential privacy{whose}: epsilon {number(epsilon, 2)} spent{at_delta} "
        "in this run, at the site that spent most of it. It covers the weights. Counts and figures "
        "are not noised; of these, isotropic growth depends on training patients by their median "
        "rate." + (f" {open_}" if open_ else "") + (f" {central}" if central else "")
    )


def _without_noise(metrics: RunMetrics) -> str | None:
    """Name the sites that sent weights without an epsilon, and in how many rounds."""
    rounds = Counter(
        site
        for entry in metrics.rounds
        for site, part in entry.sites.items()
        if part.train is not None and part.train.epsilon is None
    )
    if not rounds:
        return None
    named = [f"{site} ({_plural(rounds[site], 'round')})" for site in sorted(rounds)]
    return f"Trained without noise at {_listed(named)}: no epsilon holds for the patients there."


def _difference_words(difference: Difference) -> str:
    headline = difference.headline
    unit = f" {headline.unit}" if headline.unit else ""
    if difference.withheld and not difference.n_pairs:
        return f"{headline.title} withheld (too few patients)"
    if difference.value is None:
        return f"{headline.title} not measured ({_plural(difference.n_pairs, 'pair')})"
    return (
        f"{headline.title} {signed(difference.value, headline.decimals)}{unit} "
        f"({number(difference.model, headline.decimals)} against "
        f"{number(difference.reference, headline.decimals)}, "
        f"{_plural(difference.n_pairs, 'pair')}{_without(difference.withheld)})"
    )


def _without(withheld: int) -> str:
    """Say how many sites are not in a pooled figure."""
    return f"; {_plural(withheld, 'site')} withheld" if withheld else ""


def _plural(amount: int, noun: str) -> str:
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= 1:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
