from typing import get_args

from nognet.config import MetricName
from nognet.metrics.definitions import (
    DEFINITIONS,
    METRIC_NAMES,
    PAIR_METRIC_NAMES,
    definition_texts,
    is_better,
)


def test_the_study_may_select_by_each_defined_metric_and_no_other() -> None:
    assert get_args(MetricName) == METRIC_NAMES


def test_each_text_states_region_direction_and_for_images_the_data_range() -> None:
    texts = definition_texts()
    for name, definition in DEFINITIONS.items():
        assert definition.region in texts[name]
        assert texts[name].endswith("is better.")
    for name in ("psnr", "psnr_nodule", "ssim"):
        assert "data range is 1" in texts[name]


def test_growth_auc_is_the_only_metric_no_pair_has_on_its_own() -> None:
    assert set(METRIC_NAMES) - set(PAIR_METRIC_NAMES) == {"growth_auc"}


def test_better_follows_the_metrics_direction_and_a_tie_is_not_better() -> None:
    assert is_better("psnr", 30.0, 29.0)
    assert not is_better("log_volume_error", 0.3, 0.2)
    assert not is_better("dsc", 0.5, 0.5)
