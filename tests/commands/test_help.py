"""`--help` of every command answers at once, and imports nothing heavy."""

from __future__ import annotations

import importlib
import math
import os
import resource
import subprocess
import sys

import pytest
import typer

HEAVY = ("torch", "flwr", "SimpleITK", "matplotlib", "opacus", "monai", "scipy", "numpy", "grpc")
MODULES = {
    "nognet": "nognet.commands.main",
    "nognet-server": "nognet_server.commands.main",
    "nognet-client": "nognet_client.commands",
    "nognet-sim": "nognet_server.simulation.commands",
}


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
        timeout=60,
    )


def command_lines() -> list[list[str]]:
    """Each command, and each of its subcommands."""
    lines = []
    for command, module in MODULES.items():
        app: typer.Typer = importlib.import_module(module).app
        single = app.registered_callback is None and len(app.registered_commands) == 1
        names = [] if single else [group.name for group in app.registered_groups]
        names += [
            found.name or found.callback.__name__.replace("_", "-")
            for found in app.registered_commands
            if found.callback and not single
        ]
        lines += [[command], *([command, name] for name in names if name)]
    return lines


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        f"from {MODULES[words[0]]} import main\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    finished = run_python(code, *words, "--help")
    assert "Usage" in finished.stdout
    assert finished.stdout.rstrip().endswith("heavy: []")


@pytest.mark.parametrize("command", MODULES)
def test_help_takes_a_few_times_the_start_of_its_library(command: str) -> None:
    """Quiet, `--help` takes .22 s of processor and this library .08, so the limit is .4 s."""
    code = f"import sys; sys.argv = ['x', '--help']; import {MODULES[command]} as m; m.main()"
    ours, library = math.inf, math.inf
    for _ in range(5):  # in turns, for a loaded machine slows both
        ours = min(ours, seconds_of(code))
        library = min(library, seconds_of("import typer, rich.console, rich.table"))
    assert ours < 5 * library


def seconds_of(code: str) -> float:
    """Run some code in a process of its own; give the processor seconds that it took."""
    began = children_seconds()
    run_python(code)
    return children_seconds() - began


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
