from __future__ import annotations

import signal

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
    parser.addoption(
        "--epoch-s",
        type=float,
        default=20.0,
        help="Seconds of training behind a proxy that cuts silent connections (1800 in earnest).",
    )


def pytest_configure() -> None:
    # a suite that a shell runs in the background ignores Ctrl-C, and so would all that it starts
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def flower_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a task of Flower's, in whose name messages are made; outside of one, none can be."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
