"""A patient's names, ids, dates and paths in every input: none of them in anything that leaves."""

from __future__ import annotations

import io
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from nognet_client.app import build_app
from nognet_client.flower_adapter import error_reply
from nognet_client.tasks import Work
from nognet_server.app import app as server_app
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study
from nognet_server.simulation.engine import SimulatedSite, simulate

from nognet.config import load_site
from nognet.data.site.prepare import prepared_or_prepare
from nognet.errors import GeometryError
from nognet.fit.train import train_round
from nognet.report.metrics_file import read_metrics
from tests.builders.deployment import deployment
from tests.builders.federation import at_site, make_study
from tests.builders.planted import (
    DATES,
    FIRST_NAME,
    IDENTITY,
    SURNAME,
    find_identity,
    write_planted_site,
)


class Tapped(ClientApp):
    """A client app of whose answers every byte is kept, as it goes to the coordinator."""

    def __init__(self, inner: ClientApp) -> None:
        super().__init__()
        self.inner, self.sent = inner, list[bytes]()

    def __call__(self, message: Message, context: Context) -> Message:
        reply = self.inner(message, context)
        self.sent.append(message_to_proto(reply).SerializeToString())
        return reply


@dataclass
class Searched:
    """A run of planted sites, and all that came out of it."""

    folder: RunFolder
    sites: list[Path]
    sent: list[bytes]
    server_log: list[str] = field(default_factory=list)


class Lines(logging.Handler):
    """Keep what a logger says, its tracebacks too."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def failing(error: Callable[[], Exception]) -> Callable[..., Any]:
    def fails(*_: Any, **__: Any) -> Any:
        raise error()

    return fails


FAILURES: dict[str, Callable[[], Exception]] = {
    "site_b": lambda: ValueError(IDENTITY),
    "site_c": lambda: GeometryError(IDENTITY, code="sheared"),
    "site_d": lambda: FileNotFoundError(2, IDENTITY, f"/data/{SURNAME}"),
}


def planted_sites(folder: Path, names: Sequence[str], **settings: Any) -> list[Path]:
    """Write and prepare one hospital, and copy it under other names: preparing takes longest."""
    first = write_planted_site(folder / names[0], names[0], **settings)
    prepared_or_prepare(load_site(first))
    paths = [first]
    for name in names[1:]:
        shutil.copytree(folder / names[0], folder / name)
        path = folder / name / first.relative_to(folder / names[0])
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(values | {"name": name}), encoding="utf-8")
        paths.append(path)
    return paths


def run_and_search(
    folders: tuple[Path, Path],
    names: Sequence[str],
    train: Callable[..., Any] = train_round,
    site: dict[str, Any] | None = None,
    **study_values: Any,
) -> Searched:
    """Prepare from DICOM, join, train, evaluate and report, with an identity everywhere."""
    hospitals, coordinator = folders
    sites = planted_sites(hospitals, names, **(site or {}))
    study = make_study(coordinator, **{"rounds": 1, **study_values})
    folder = new_run_folder(study)
    write_study(folder, study)
    tapped, lines = Tapped(build_app(Work(train=train))), Lines()
    logger = logging.getLogger("nognet.server")
    logger.addHandler(lines)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        settings = RunSettings(study, folder.path, closed_roster=len(sites), poll_s=0.02)
        run_sites = [SimulatedSite(load_site(path).name, path, threads=1) for path in sites]
        simulate(server_app, tapped, run_sites, settings, workers=1)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
    return Searched(folder, sites, tapped.sent, lines.lines)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """One site that trains, and three that fail with the identity in their errors."""
    train: Callable[..., Any] = train_round
    for name, error in FAILURES.items():
        train = at_site(name, train, instead=failing(error))
    folders = tmp_path_factory.mktemp("hospitals"), tmp_path_factory.mktemp("coordinator")
    federation = {"minimum_sites": 1, "quorum": 0.1}
    return run_and_search(folders, ("site_a", *FAILURES), train, federation=federation)


def files_below(*folders: Path) -> list[Path]:
    return [path for top in folders for path in (top, *top.rglob("*")) if path.is_file()]


def test_the_run_did_all_that_is_searched(searched: Searched) -> None:
    metrics = read_metrics(searched.folder.path)
    assert metrics.status == "completed"
    (played,) = metrics.rounds
    reasons = {site: part.reason for site, part in played.sites.items()}
    assert reasons == {
        "site_a": None,
        "site_b": "ValueError:unexpected",
        "site_c": "GeometryError:sheared",
        "site_d": "FileNotFoundError:unexpected",
    }
    assert len(searched.sent) == 4 * 4, len(searched.sent)  # join, train, evaluate twice
    assert len(searched.server_log) > 10


def test_no_byte_that_is_sent_tells_who_the_patients_are(searched: Searched) -> None:
    found = {n: find_identity(data) for n, data in enumerate(searched.sent) if find_identity(data)}
    assert found == {}


def test_nothing_at_the_coordinator_tells_it(searched: Searched) -> None:
    files = files_below(searched.folder.path)
    assert len(files) >= 5
    found = {p.name: hit for p in files if (hit := find_identity(p.read_bytes()))}
    assert found == {}
    assert find_identity("\n".join(searched.server_log).encode()) == []


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Give a file's bytes by its name, and those of each member of an archive, unpacked."""
    data = path.read_bytes()
    yield path.name, data
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield f"{path.name}/{name}", archive.read(name)


def found_in(*folders: Path) -> dict[str, list[str]]:
    """Say in which files below the folders the identity is; names of files are searched, too."""
    found = {}
    for folder in folders:
        for path in files_below(folder):
            for name, data in contents(path):
                where = path.relative_to(folder).as_posix().encode() + b"\n"
                if hits := find_identity(where + data):
                    found[name] = hits
    return found


WORDS_FOR_ITS_OWN_USER = {"pseudonym.key", "prepare-report.json", "memory"}
"""In the state: the key, and what preparing found and remembers, by the table's own names."""


def kept_at(site: Path) -> tuple[Path, ...]:
    """Give the site's cache, and all of its state that runs write."""
    config = load_site(site)
    rooms = [room for room in config.state.iterdir() if room.name not in WORDS_FOR_ITS_OWN_USER]
    return config.cache, *rooms


def test_no_receipt_log_kept_reply_or_prepared_pair_tells_it(searched: Searched) -> None:
    for site in searched.sites:
        cache, *rooms = kept_at(site)
        assert {room.name for room in rooms} >= {"egress", "replies", "consent", "splits.json"}
        assert any(path.suffix == ".npz" for path in files_below(cache))
        assert found_in(cache, *rooms) == {}


PRIVATE: dict[str, Any] = {
    "privacy": {"noise_multiplier": 2.0, "delta": 0.1},
    "secure_aggregation": {"bits": 24, "max_weight": 50},
    "federation": {"minimum_sites": 3},
}
PERSONAL: dict[str, Any] = {
    "personalisation": {"local": "norms+head", "ditto_lambda": 0.1, "cross_site": "local"},
    "federation": {"minimum_sites": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "study", "site", "rooms"),
    [
        (("site_a", "site_b", "site_c"), PRIVATE, {}, {"privacy", "secure", "consent"}),
        (
            ("site_a", "site_b"),
            PERSONAL,
            {"share_models": True, "leakage": {"check": "every"}},
            {"personal", "consent"},
        ),
    ],
    ids=["privacy and a secure sum", "own models that visit, and a leakage test"],
)
def test_what_other_protections_send_and_keep_tells_it_no_more(
    tmp_path: Path,
    names: Sequence[str],
    study: dict[str, Any],
    site: dict[str, Any],
    rooms: set[str],
) -> None:
    done = run_and_search((tmp_path / "hospitals", tmp_path / "c"), names, site=site, **study)
    assert read_metrics(done.folder.path).status == "completed"
    assert [hits for data in done.sent if (hits := find_identity(data))] == []
    assert found_in(done.folder.path) == {}
    assert find_identity("\n".join(done.server_log).encode()) == []
    for path in done.sites:
        cache, *kept = kept_at(path)
        assert {room.name for room in kept} >= rooms
        assert found_in(cache, *kept) == {}


def test_the_search_finds_what_an_archive_holds_packed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pair.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("text.npy", f"{SURNAME} " * 9)
    assert list(found_in(tmp_path)) == ["pair.npz/text.npy"]


@pytest.mark.parametrize("text", [SURNAME, FIRST_NAME.lower(), DATES[0], "18.02.2021", "19500329"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_the_search_finds_what_is_planted(text: str, encoding: str) -> None:
    assert find_identity(b"\x00\x01" + f"xx{text}yy".encode(encoding) + b"\xff")


def test_the_search_finds_what_an_app_without_a_guard_sends(tmp_path: Path) -> None:
    """Flower's own way: the exception's text goes out. The search has to see it."""
    site = write_planted_site(tmp_path, "site_x")

    class Unguarded(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:  # noqa: ARG002  an app's arguments
            return error_reply(message, f"{FAILURES['site_d']()} {site}")

    tapped = Tapped(Unguarded())
    study = make_study(tmp_path, rounds=1)
    folder = new_run_folder(study)
    write_study(folder, study)
    settings = RunSettings(study, folder.path, closed_roster=1, poll_s=0.02)
    with pytest.raises(Exception, match="site"):
        simulate(
            server_app, tapped, [SimulatedSite("site_x", site, threads=1)], settings, workers=1
        )
    assert any(SURNAME in " ".join(find_identity(data)) for data in tapped.sent)


@pytest.mark.federation
@pytest.mark.slow
def test_a_deployed_coordinator_learns_nothing_of_it_over_tls(tmp_path: Path) -> None:
    """Keys, TLS, SuperLink and its database, ServerApp, report: the coordinator's whole folder."""
    study = {"rounds": 1, "federation": {"minimum_sites": 1, "quorum": 0.1, "expected_sites": 2}}
    with deployment(tmp_path / "federation", **study) as built:
        for name in built.sites:
            planted = load_site(write_planted_site(tmp_path / "hospitals", name))
            refused = {"max_update_norm": 1e-9} if name == "hospital_b" else {}
            built.edit(
                built.site_file(name),
                studies=str(planted.studies),
                cache=str(planted.cache),
                state=str(planted.state),
                split={"validation": 0.3, "test": 0.3},
                preparation={"workers": 1, "registration": {"enabled": False}},
                egress={"min_patients": 1, **refused},
            )
        server = built.server()
        built.clients()
        assert server.wait(240) == 0, server.output
        coordinator = built.folder / "coordinator"
        reasons = [p.name for p in built.runs.iterdir()]
        metrics = read_metrics(built.runs / reasons[0])
        assert metrics.rounds[0].sites["hospital_b"].reason == "EgressError:update-norm"
        files = files_below(coordinator)
        assert {".db", ".json", ".html"} & {path.suffix for path in files}
        found = {str(p): hit for p in files if (hit := find_identity(p.read_bytes()))}
        assert found == {}
        assert find_identity(server.output.encode()) == []
