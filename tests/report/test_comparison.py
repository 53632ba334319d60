import pytest

from nognet.report.comparison import (
    ALL_SITES,
    HEADLINES,
    Difference,
    SiteComparison,
    Verdict,
    compare_sites,
    ordered_predictors,
    result_rows,
)
from tests.builders.run_metrics import build_run


def _comparison(*pairs: tuple[float | None, float | None]) -> SiteComparison:
    differences = tuple(
        Difference(headline, model, copy, 10)
        for headline, (model, copy) in zip(HEADLINES, pairs, strict=True)
    )
    return SiteComparison("alpha", 8, 16, differences)


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        (((0.7, 0.6), (0.8, 0.7), (29.0, 28.0)), "better"),
        (((0.7, 0.6), (0.8, 0.7), (27.0, 28.0)), "mixed"),
        (((0.5, 0.6), (0.6, 0.7), (27.0, 28.0)), "worse"),
        (((0.6, 0.6), (0.7, 0.7), (28.0, 28.0)), "equal"),
        (((None, 0.6), (0.8, 0.7), (29.0, 28.0)), "mixed"),
        (((None, None), (None, 0.7), (29.0, None)), "unknown"),
        (((0.6004, 0.6), (0.8, 0.7), (29.0, 28.0)), "mixed"),  # equal in the digits shown
    ],
)
def test_a_site_is_better_only_if_every_headline_was_measured_and_is(
    pairs: tuple[tuple[float | None, float | None], ...], verdict: Verdict
) -> None:
    assert _comparison(*pairs).verdict == verdict


def test_differences_are_the_model_minus_copying_on_the_same_site() -> None:
    metrics = build_run()
    assert metrics.final is not None
    for comparison in compare_sites(metrics)[:-1]:
        test = metrics.final.sites[comparison.site].test
        growing, overall, psnr = (difference.value for difference in comparison.differences)
        model, copy = test["federated"]["dsc"], test["copy"]["dsc"]
        assert growing == model.strata["growing"].mean - copy.strata["growing"].mean  # type: ignore[operator]  # both measured
        assert overall == model.mean - copy.mean  # type: ignore[operator]  # both measured
        assert psnr == pytest.approx(test["federated"]["psnr"].mean - test["copy"]["psnr"].mean)  # type: ignore[operator]  # both measured


def test_sites_come_by_name_and_all_sites_last() -> None:
    sites = [comparison.site for comparison in compare_sites(build_run(sites=("b", "a")))]
    assert sites == ["a", "b", ALL_SITES]
    assert [c.site for c in compare_sites(build_run(sites=("a",)))] == ["a"]
    assert compare_sites(build_run(finished=False)) == []


def test_models_come_before_baselines_and_unknown_predictors_last() -> None:
    names = ["isotropic", "zebra", "copy", "local", "federated"]
    assert ordered_predictors(names) == ["federated", "local", "copy", "isotropic", "zebra"]


def test_copying_has_no_difference_to_itself() -> None:
    rows = [row for row in result_rows(build_run()) if row.predictor == "copy"]
    assert rows
    assert all(row.difference("dsc") is None for row in rows)
