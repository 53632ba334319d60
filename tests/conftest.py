from __future__ import annotations

import hypothesis
import pytest

# The same examples in every run, on fast machines and slow ones: no test fails by chance.
hypothesis.settings.register_profile(
    "nognet",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("nognet")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-golden",
        action="store_true",
        help="Write the figures that golden tests compare with anew (make golden).",
    )
    parser.addoption(
        "--fault-table",
        metavar="PATH",
        help="Write what each fault of the fault matrix did, as Markdown (make fault-matrix).",
    )
