import re

import pytest

from nognet.metrics.definitions import DEFINITIONS
from nognet.report.metrics_schema import RunMetrics
from nognet.report.numbers import DASH, number, signed
from nognet.report.tables import CONSOLE_METRICS, cohort_lines, plain_text
from tests.builders.run_metrics import build_run


def _lines(text: str, predictor: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip().startswith(predictor)]


def test_the_table_has_each_sites_own_numbers() -> None:
    metrics = build_run()
    assert metrics.final is not None
    found = _lines(plain_text(metrics), "Federated model")
    tests = [metrics.final.sites[site].test for site in ("alpha", "beta", "gamma")]
    assert metrics.final.pooled is not None
    for words, test in zip(found, [*tests, metrics.final.pooled.test], strict=True):
        model = test["federated"]
        dsc = model["dsc"]
        assert words[2:] == [
            number(model["psnr"].mean, 2),
            number(model["ssim"].mean, 3),
            number(dsc.mean, 3),
            *(number(dsc.strata[name].mean, 3) for name in ("growing", "stable", "shrinking")),
            number(model["volume_error"].mean, 3),
            number(model["growth_auc"].mean, 3),
        ]


def test_differences_to_copying_stand_under_the_model() -> None:
    metrics = build_run(sites=("alpha",))
    assert metrics.final is not None
    test = metrics.final.sites["alpha"].test
    lines = plain_text(metrics).splitlines()
    row = next(i for i, line in enumerate(lines) if line.strip().startswith("Federated model"))
    model, copy = test["federated"]["psnr"].mean, test["copy"]["psnr"].mean
    assert model is not None
    assert copy is not None
    assert lines[row + 1].split()[0] == signed(model - copy, 2)


def test_the_cohorts_mix_and_the_definitions_stand_beside_the_result() -> None:
    text = plain_text(build_run())
    assert "alpha: 12 patients, 24 pairs; growing 10 (42 %), stable 12 (50 %)" in text
    flat = re.sub(r"\s+", " ", text)
    for name in CONSOLE_METRICS:
        assert DEFINITIONS[name].short in flat
    assert "Published PSNR values are not comparable" in flat
    assert "not a medical device" in flat


def test_missing_figures_are_dashes_and_never_zeros() -> None:
    values = build_run(sites=("alpha",)).model_dump(mode="json")
    model = values["final"]["sites"]["alpha"]["test"]["federated"]
    model["dsc"]["strata"]["shrinking"] = {"mean": None, "n_pairs": 0}
    del model["growth_auc"]
    words = _lines(plain_text(RunMetrics.model_validate(values)), "Federated model")[0]
    assert words[-3] == words[-1] == DASH


def test_a_running_run_can_be_printed() -> None:
    text = plain_text(build_run(rounds=1, finished=False))
    assert text.startswith("The run is still going")


@pytest.mark.parametrize("width", [80, 100, 112])
def test_the_table_fits_the_terminal_without_cutting_a_number(width: int) -> None:
    text = plain_text(build_run(), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


def test_markup_in_a_sites_name_is_printed_as_it_is() -> None:
    assert "[red]boo[/red]" in plain_text(build_run(sites=("[red]boo[/red]",)))


def test_a_site_without_test_counts_is_left_out_of_the_cohort() -> None:
    values = build_run().model_dump(mode="json")
    del values["sites"]["beta"]["counts"]["test"]
    assert len(list(cohort_lines(RunMetrics.model_validate(values)))) == 2
