import base64
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

from nognet.report.cases import case_png
from nognet.report.figures import curves_svg, results_svg
from nognet.report.metrics_schema import RunMetrics
from tests.builders.run_metrics import build_case, build_run


def _texts(svg: str | None) -> list[str]:
    assert svg is not None
    tree = ET.fromstring(svg)  # noqa: S314  our own output
    return [element.text or "" for element in tree.iter() if element.tag.endswith("text")]


def test_curves_name_each_site_and_metric() -> None:
    texts = _texts(curves_svg(build_run()))
    assert {"alpha", "beta", "gamma", "Validation DSC", "Validation PSNR (dB)"} <= set(texts)
    assert {"Training loss", "copy of the baseline", "best"} <= set(texts)


def test_results_name_each_site_and_predictor() -> None:
    texts = _texts(results_svg(build_run()))
    assert {"alpha", "all sites", "Federated model", "Copy of the baseline"} <= set(texts)


def test_a_loss_that_no_site_shares_leaves_a_panel_that_says_so() -> None:
    values = build_run(rounds=1).model_dump(mode="json")
    assert "no values" not in _texts(curves_svg(build_run(rounds=1)))
    for part in values["rounds"][0]["sites"].values():
        part["train"]["loss"] = None
    assert "no values" in _texts(curves_svg(RunMetrics.model_validate(values)))


def test_there_is_nothing_to_draw_before_the_first_round() -> None:
    empty = build_run(rounds=0, finished=False)
    assert curves_svg(empty) is None
    assert results_svg(empty) is None


def test_a_name_from_outside_is_text_and_neither_markup_nor_mathematics() -> None:
    name = "<script>$x^2$</script>"
    for svg in (curves_svg(build_run(sites=(name,))), results_svg(build_run(sites=(name,)))):
        assert "<script>" not in (svg or "")
        assert name in _texts(svg)


def test_the_same_run_gives_the_same_figure() -> None:
    metrics = build_run(rounds=2)
    assert curves_svg(metrics) == curves_svg(metrics)


def test_drawing_leaves_matplotlibs_own_settings_alone() -> None:
    before = dict(mpl.rcParams)
    results_svg(build_run(sites=("a",)))
    case_png(build_case(size=32))
    assert dict(mpl.rcParams) == before


def test_a_case_is_drawn_as_a_png_and_left_as_it_was() -> None:
    case = build_case(size=32)
    copies = {name: np.copy(getattr(case, name)) for name in ("baseline", "displacement_vox")}
    assert base64.b64decode(case_png(case)).startswith(b"\x89PNG")
    assert all(np.array_equal(getattr(case, name), array) for name, array in copies.items())


def test_a_case_without_any_mask_or_motion_is_drawn() -> None:
    case = build_case(size=32)
    empty = np.zeros_like(case.baseline_mask)
    still = replace(
        case,
        baseline_mask=empty,
        follow_up_mask=empty,
        predicted_mask=empty,
        follow_up=case.baseline,
        predicted=case.baseline,
        displacement_vox=np.zeros_like(case.displacement_vox),
    )
    assert base64.b64decode(case_png(still)).startswith(b"\x89PNG")


def test_a_case_on_two_grids_or_with_nan_is_refused() -> None:
    case = build_case(size=32)
    with pytest.raises(ValueError, match=r"follow_up is \(31, 32, 32\)"):
        replace(case, follow_up=case.follow_up[1:])
    with pytest.raises(ValueError, match="displacement_vox is"):
        replace(case, displacement_vox=case.displacement_vox[:2])
    with pytest.raises(ValueError, match="predicted holds"):
        replace(case, predicted=np.full_like(case.predicted, np.nan))
