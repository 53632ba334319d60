"""The result in plain words, as honest as the figures: also when the model doesn't win."""

from __future__ import annotations

from collections.abc import Sequence

from nognet.report.comparison import ALL_SITES, Difference, SiteComparison, Verdict, compare_sites
from nognet.report.metrics_file import RunMetrics
from nognet.report.numbers import count, number, signed

_VERDICT_WORDS: dict[Verdict, str] = {
    "better": "better than copying in every headline metric",
    "mixed": "better in some headline metrics, not in all",
    "equal": "equal to copying",
    "worse": "worse than copying in every headline metric",
    "unknown": "could not be compared",
}
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
        entry.counts["train"].patients
        for entry in metrics.sites.values()
        if "train" in entry.counts
    )
    where = f"{_plural(len(sites), 'site')} ({_listed(sites)})" if sites else "no site yet"
    rounds = f"{done}{of_planned} {'round' if done == 1 and not of_planned else 'rounds'}"
    return (
        f"MT-NoGNet was trained in {rounds} of federated learning at {where}, on "
        f"{_plural(patients, 'training patient')}. Sites exchanged model weights and summary "
        "statistics only."
    )


def result_sentence(metrics: RunMetrics) -> str:
    """Say whether the federated model beats copying the baseline, and where."""
    comparisons = [c for c in compare_sites(metrics) if c.site != ALL_SITES]
    if metrics.final is None or not comparisons:
        status = _STATUS_WORDS[metrics.status]
        return f"{status} and has no test results, so nothing can be said of its quality yet."
    better = [c.site for c in comparisons if c.verdict == "better"]
    patients = sum(c.n_patients for c in comparisons)
    pairs = sum(c.n_pairs for c in comparisons)
    behind = f"{_plural(patients, 'test patient')} ({_plural(pairs, 'pair')} of scans)"
    model = f"On {behind}, the federated model of round {metrics.final.round}"
    metrics_named = "DSC of growing nodules, DSC of all nodules and PSNR"
    if len(better) == len(comparisons):
        at = "every site" if len(better) > 1 else "the site"
        return f"{model} beats copying the baseline scan at {at} in {metrics_named}."
    if better:
        where = f"at {len(better)} of {len(comparisons)} sites ({_listed(better)})"
        others = _listed(_rest(comparisons))
        return (
            f"{model} beats copying the baseline scan in {metrics_named} {where}, "
            f"and not at {others}."
        )
    return f"{model} does not beat copying the baseline scan in all of {metrics_named} at any site."


def site_sentence(comparison: SiteComparison) -> str:
    """Say one site's differences to copying, with both values and the pairs behind them."""
    parts = "; ".join(_difference_words(difference) for difference in comparison.differences)
    return f"{verdict_words(comparison.verdict)}: {parts}."


def caution_sentence(comparisons: Sequence[SiteComparison]) -> str | None:
    """Warn where few test patients stand behind a site's figures."""
    few = [c for c in comparisons if c.site != ALL_SITES and c.n_patients < 30]
    if not few:
        return None
    return (
        f"{_listed([c.site for c in few])} {'has' if len(few) == 1 else 'have'} fewer than 30 test "
        "patients: a difference that is small beside the standard deviation may be chance."
    )


def privacy_sentence(metrics: RunMetrics) -> str:
    """Say what patient-level differential privacy cost, or that there was none."""
    spent = {
        site: (part.train.epsilon, part.train.delta)
        for entry in metrics.rounds
        for site, part in entry.sites.items()
        if part.train is not None and part.train.epsilon is not None
    }
    if not spent:
        return "Trained without differential privacy."
    epsilon, delta = max(spent.values(), key=lambda pair: pair[0] or 0.0)
    at_delta = "" if delta is None else f" at delta {delta:g}"
    whose = "" if len(spent) == len(metrics.sites) else f" ({_listed(sorted(spent))} only)"
    return (
        f"Patient-level differential privacy{whose}: epsilon {number(epsilon, 2)} spent{at_delta} "
        "at the site that spent most."
    )


def _difference_words(difference: Difference) -> str:
    headline = difference.headline
    unit = f" {headline.unit}" if headline.unit else ""
    if difference.value is None:
        return f"{headline.title} not measured ({_plural(difference.n_pairs, 'pair')})"
    return (
        f"{headline.title} {signed(difference.value, headline.decimals)}{unit} "
        f"({number(difference.model, headline.decimals)} against "
        f"{number(difference.reference, headline.decimals)}, "
        f"{_plural(difference.n_pairs, 'pair')})"
    )


def _rest(comparisons: Sequence[SiteComparison]) -> list[str]:
    return [c.site for c in comparisons if c.verdict != "better"]


def _plural(amount: int, noun: str) -> str:
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= 1:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
