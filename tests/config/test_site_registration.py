from __future__ import annotations

import pytest
from pydantic import ValidationError

from nognet.config import RegistrationConfig


def test_by_default_any_shift_is_allowed_and_the_warning_comes_before_the_refusal() -> None:
    config = RegistrationConfig()
    assert config.max_shift_mm is None
    assert config.min_ncc < config.warn_ncc


def test_a_warning_below_the_refusal_is_an_error() -> None:
    with pytest.raises(ValidationError, match=r"warn_ncc \(0.8\) is below min_ncc \(0.9\)"):
        RegistrationConfig(min_ncc=0.9)
    assert RegistrationConfig(min_ncc=0.8).min_ncc == 0.8


@pytest.mark.parametrize("limit", [0.0, -1.0])
def test_a_limit_of_the_shift_is_above_zero(limit: float) -> None:
    with pytest.raises(ValidationError):
        RegistrationConfig(max_shift_mm=limit)
