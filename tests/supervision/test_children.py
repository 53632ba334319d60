"""Children: started, stopped, restarted with back-off, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nognet.errors import NognetError
from nognet.supervision.children import (
    Child,
    ChildSpec,
    StopRequest,
    back_off_s,
    flower_environment,
    stop_children,
)
from nognet.supervision.events import Event, EventPipe, EventWriter
from nognet.supervision.lock import exclusive

HELPER = """
import os, sys, time
from nognet.supervision.parent import die_with_parent
{body}
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder of child modules, on the path of the children."""
    bodies = {
        "sleeper": "die_with_parent(int(sys.argv[2])); print('up', flush=True); time.sleep(60)",
        "stubborn": (
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "print('up', flush=True); time.sleep(60)"
        ),
        "failing": "print('no luck', file=sys.stderr); sys.exit(3)",
        "late": "time.sleep(0.5); die_with_parent(int(sys.argv[2])); time.sleep(60)",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(HELPER.format(body=body), encoding="utf-8")
    return tmp_path


def child(modules: Path, name: str) -> Child:
    environment = {**os.environ, "PYTHONPATH": str(modules)}
    return Child(ChildSpec(name, name, (), modules / "logs" / f"{name}.log"), environment)


def wait_for(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_child_writes_its_log_and_is_stopped(modules: Path) -> None:
    sleeper = child(modules, "sleeper")
    sleeper.start()
    wait_for(lambda: "up" in sleeper.log_tail())
    stop_children((sleeper,))
    assert not sleeper.running
    assert sleeper.reap() == -signal.SIGTERM


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(modules: Path) -> None:
    stubborn = child(modules, "stubborn")
    stubborn.start()
    wait_for(lambda: "up" in stubborn.log_tail())
    stop_children((stubborn,), grace_s=0.2)
    assert stubborn.reap() == -signal.SIGKILL


def test_a_failed_child_waits_longer_each_time(modules: Path) -> None:
    failing = child(modules, "failing")
    for failures in (1, 2):
        failing.start()
        wait_for(lambda: not failing.running)
        assert failing.reap() == 3
        assert failing.reap() is None
        assert failing.failures == failures
        assert not failing.due
        assert failing.next_start - time.monotonic() <= back_off_s(failures)
    assert "no luck" in failing.log_tail()


def test_back_off_grows_to_a_bound() -> None:
    waits = [back_off_s(n) for n in range(40)]
    assert waits == sorted(waits)
    assert waits[-1] == 30.0


def supervisor_of(modules: Path, name: str) -> tuple[subprocess.Popen[str], int]:
    """Start a process that starts a child; return it and the child's pid."""
    program = (
        "import os, sys, time; from pathlib import Path;"
        "from nognet.supervision.children import Child, ChildSpec;"
        f"c = Child(ChildSpec('x', {name!r}, (), Path({str(modules / 'x.log')!r})), os.environ);"
        "c.start(); print(c.process.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(modules)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("name", ["sleeper", "late"])
def test_a_child_dies_with_a_killed_parent(modules: Path, name: str) -> None:
    """`late` asks the kernel only after its parent has died: the race is closed as well."""
    parent, pid = supervisor_of(modules, name)
    if name == "sleeper":
        wait_for(lambda: "up" in (modules / "x.log").read_text(encoding="utf-8"))
    parent.kill()
    parent.communicate()
    wait_for(lambda: not exists(pid), 5)


def test_a_stop_request_is_noted_and_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        started = time.monotonic()
        assert stop.wait(30)
        assert time.monotonic() - started < 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_events_arrive_whole_and_in_order() -> None:
    pipe = EventPipe()
    writer = EventWriter(pipe.write_end)
    writer.send("first", "a text", number=1)
    writer.send("second")
    assert pipe.drain() == [Event("first", "a text", {"number": 1}), Event("second")]
    assert pipe.drain() == []
    os.write(pipe.write_end, b'{"kind": "third", ')
    assert pipe.drain() == []
    os.write(pipe.write_end, b'"text": "", "values": {}}\nnonsense\n')
    assert pipe.drain() == [Event("third")]
    pipe.close()


def test_a_writer_outlives_its_reader() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    EventWriter(write_end).send("nobody listens")
    os.close(write_end)


def test_a_locked_folder_is_refused_with_the_holders_pid(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path, "nognet-client"),
        pytest.raises(NognetError, match=rf"another nognet-client \(pid {os.getpid()}\)"),
        exclusive(tmp_path, "nognet-client"),
    ):
        pass
    with exclusive(tmp_path, "nognet-client"):
        pass


def test_the_environment_keeps_flower_quiet_and_loopback_off_the_proxy(tmp_path: Path) -> None:
    base = {"NO_PROXY": "intranet", "HTTPS_PROXY": "http://proxy:3128", "PATH": "/usr/bin"}
    values = flower_environment(tmp_path, base, threads=2)
    assert values["FLWR_TELEMETRY_ENABLED"] == "0"
    assert values["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert values["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert values["FLWR_HOME"] == str(tmp_path)
    assert values["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert values["HTTPS_PROXY"] == base["HTTPS_PROXY"]
    assert values["OMP_NUM_THREADS"] == "2"
    assert base == {"NO_PROXY": "intranet", "HTTPS_PROXY": "http://proxy:3128", "PATH": "/usr/bin"}
