"""Dockerfiles and compose files, as far as they can be judged without a Docker engine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nognet.config import load_site, load_study
from nognet.supervision.lock import exclusive

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SIDES = ("server", "client")


def instructions(side: str) -> list[tuple[str, str]]:
    """Read a Dockerfile into (instruction, rest) with continued lines joined."""
    lines = [
        line
        for line in (DEPLOY / f"Dockerfile.{side}").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    text = "\n".join(lines).replace("\\\n", " ")
    found = [line.strip().partition(" ") for line in text.splitlines()]
    return [(name, rest.strip()) for name, _, rest in found]


def of_kind(side: str, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(side) if instruction == name]


def copied_from_context(side: str) -> list[str]:
    """List what a Dockerfile copies from the repository."""
    copies = [shlex.split(rest) for rest in of_kind(side, "COPY")]
    return [source for words in copies if not words[0].startswith("--") for source in words[:-1]]


def compose(side: str) -> Any:
    return yaml.safe_load((DEPLOY / f"compose.{side}.yaml").read_text(encoding="utf-8"))


def service(side: str) -> Any:
    (only,) = compose(side)["services"].values()
    return only


@pytest.mark.parametrize("side", SIDES)
def test_a_dockerfile_holds_known_instructions_only(side: str) -> None:
    known = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "STOPSIGNAL"}
    known |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions(side)} <= known


@pytest.mark.parametrize("side", SIDES)
def test_everything_copied_exists_and_is_let_through_to_the_build(side: str) -> None:
    allowed = (DEPLOY / f"Dockerfile.{side}.dockerignore").read_text(encoding="utf-8").splitlines()
    sources = copied_from_context(side)
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source.rstrip('/')}" in allowed
    assert "*" in allowed  # and all else stays out


@pytest.mark.parametrize("side", SIDES)
def test_the_base_image_is_pinned_to_a_patch_release(side: str) -> None:
    (default,) = [rest for rest in of_kind(side, "ARG") if rest.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+", default)
    assert {rest.split()[0] for rest in of_kind(side, "FROM")} == {"${PYTHON_IMAGE}"}


@pytest.mark.parametrize("side", SIDES)
def test_packages_are_installed_at_the_tested_versions(side: str) -> None:
    installs = [rest for rest in of_kind(side, "RUN") if "pip install" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in rest for rest in installs)


@pytest.mark.parametrize("side", SIDES)
def test_the_process_is_not_root_and_has_an_init(side: str) -> None:
    assert of_kind(side, "USER") == ["10001:10001"]
    names = [name for name, _ in instructions(side)]
    assert names.index("USER") < names.index("ENTRYPOINT")
    (entry,) = of_kind(side, "ENTRYPOINT")
    assert json.loads(entry)[:2] == ["tini", "--"]
    assert any("tini" in rest for rest in of_kind(side, "RUN"))


@pytest.mark.parametrize("side", SIDES)
def test_the_entry_point_is_an_installed_command(side: str) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "scripts"
    ]
    (entry,) = of_kind(side, "ENTRYPOINT")
    command = json.loads(entry)[2]
    assert command in scripts
    (arguments,) = of_kind(side, "CMD")
    help_text = subprocess.run(
        [Path(sys.executable).parent / command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout
    assert json.loads(arguments)[0] in help_text
    assert service(side)["command"] == json.loads(arguments)


@pytest.mark.parametrize("side", SIDES)
def test_the_health_check_is_a_command_on_the_mounted_configuration(side: str) -> None:
    (check,) = of_kind(side, "HEALTHCHECK")
    program = json.loads(check.partition("CMD")[2])
    assert program[:2] == [f"nognet-{side}", "health"]
    assert program[-2:] == service(side)["command"]


def test_a_client_that_waits_for_its_coordinator_is_not_restarted(tmp_path: Path) -> None:
    (check,) = of_kind("client", "HEALTHCHECK")
    words = json.loads(check.partition("CMD")[2])[1:-1]
    site = tmp_path / "site.yaml"
    site.write_text("{name: hospital_a, studies: studies.csv}", encoding="utf-8")
    program = [sys.executable, "-c", "from nognet_client.commands import main; main()"]
    with exclusive(tmp_path / "state", "nognet-client"):
        assert subprocess.run([*program, *words, str(site)], check=False).returncode == 0
    assert subprocess.run([*program, *words, str(site)], check=False).returncode == 1


@pytest.mark.parametrize("side", SIDES)
def test_no_secret_is_in_an_image(side: str) -> None:
    text = (DEPLOY / f"Dockerfile.{side}").read_text(encoding="utf-8")
    assert not re.search(r"COPY .*(key|pki|\.crt|\.pem)|PASSWORD|SECRET|TOKEN", text)
    ignored = (DEPLOY / f"Dockerfile.{side}.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {"**/*.key", "**/*.pem", "**/*.crt"} <= set(ignored)


@pytest.mark.parametrize("side", SIDES)
def test_a_service_is_closed_up(side: str) -> None:
    only = service(side)
    assert only["read_only"] is True
    assert only["cap_drop"] == ["ALL"]
    assert only["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in only
    assert re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+", only["image"])
    assert (DEPLOY / only["build"]["context"] / only["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("side", SIDES)
def test_what_is_mounted_is_read_only_and_what_is_written_is_a_volume(side: str) -> None:
    volumes = set(compose(side)["volumes"])
    for mount in service(side)["volumes"]:
        source, target = re.fullmatch(r"(\$\{[^}]*\}|[^:]*):(/.*)", mount).groups()  # type: ignore[union-attr]  # no match fails the test
        assert (source in volumes) != target.endswith(":ro")


def test_the_client_publishes_no_port_and_asks_for_a_gpu() -> None:
    client = service("client")
    assert not {"ports", "expose", "network_mode"} & client.keys()
    (device,) = client["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_the_server_publishes_the_public_port_alone() -> None:
    study = load_study(DEPLOY / "examples" / "study.yaml")
    assert study.server is not None
    port = study.server.listen.rpartition(":")[2]
    assert service("server")["ports"] == [f"{port}:{port}"]
    assert of_kind("server", "EXPOSE") == [port]


def test_the_examples_use_the_paths_that_are_mounted() -> None:
    study = load_study(DEPLOY / "examples" / "study.yaml")
    site = load_site(DEPLOY / "examples" / "site.yaml")
    assert study.server is not None
    assert site.server is not None
    server = study.server
    server_paths = [study.runs, server.ca, server.certificate, server.key, server.sites]
    client_paths = [site.studies, site.cache, site.state, site.server.ca, site.server.key]
    for side, paths in (("server", [*server_paths, server.state]), ("client", client_paths)):
        mounted = {
            "/" + re.sub(r":ro$", "", mount).rpartition(":/")[2]
            for mount in service(side)["volumes"]
        }
        assert all(any(path.is_relative_to(m) for m in mounted) for path in paths)


def test_the_readme_names_files_and_variables_that_exist() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DEPLOY / link).resolve().exists(), link
    used = set(re.findall(r"\$\{(\w+)", "".join(p.read_text() for p in DEPLOY.glob("compose.*"))))
    assert used == set(re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE))


@pytest.mark.slow
def test_what_is_copied_is_enough_to_build_the_package(tmp_path: Path) -> None:
    for source in copied_from_context("server"):
        origin = ROOT / source
        if origin.is_dir():
            shutil.copytree(origin, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, tmp_path / source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
    subprocess.run([*build, "--wheel-dir", tmp_path / "out", tmp_path], check=True)
    assert [p.suffix for p in (tmp_path / "out").iterdir()] == [".whl"]
