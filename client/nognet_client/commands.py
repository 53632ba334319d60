"""`nognet-client`: take part in a federation as a site."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.console import (
    HealthPortOption,
    LogFormat,
    LogFormatOption,
    VersionOption,
    emit,
    run_guarded,
    set_up_logging,
)

if TYPE_CHECKING:
    from nognet.config import SiteConfig
    from nognet_client.processes.family import ClientOptions

app = typer.Typer(name="nognet-client", add_completion=False, pretty_exceptions_enable=False)
SiteOption = Annotated[Path, typer.Option(help="The site's configuration.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TrustedOption = Annotated[
    Path | None,
    typer.Option(help="YAML file of keys; a run that none of them signed is refused."),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="No TLS, for trials; to 127.0.0.1 only.")
]
ChaosOption = Annotated[
    str | None,
    typer.Option(
        help="Faults to inflict on purpose, as 'drop@3, slow x5', or the list for all sites; only "
        "where site.yaml and study.yaml say `rehearsal: true`."
    ),
]


@app.callback(invoke_without_command=True)
def client(  # noqa: PLR0913, PLR0917  each option is an argument
    context: typer.Context,
    site: Annotated[Path | None, typer.Option(help="The site's configuration, site.yaml.")] = None,
    trusted_entities: TrustedOption = None,
    health_port: HealthPortOption = None,
    insecure: InsecureOption = False,
    chaos: ChaosOption = None,
    log_format: LogFormatOption = LogFormat.text,
    forecast: Annotated[
        Path | None,
        typer.Option(help="Only say what this study.yaml would cost here; nothing is connected."),
    ] = None,
    as_json: JsonOption = False,
    version: VersionOption = False,  # noqa: ARG001  handled by its callback
) -> None:
    """Prepare this site's data, connect to the coordinator and train in its rounds.

    Connections go outwards only, through the proxy that HTTPS_PROXY names if there is one. Ctrl-C
    ends it; the coordinator goes on without this site.

    Exit codes: 130 ended by a signal; 3 configuration; 4, 5 data; 9 the health port is taken; 12
    keys, certificates, or refused by the coordinator; 14 this site would decline the study
    (--forecast). All of them: docs/exit-codes.md.
    """
    if context.invoked_subcommand is not None:
        return
    if site is None:
        raise typer.BadParameter("give the site's configuration: --site site.yaml")
    from nognet_client.processes.family import ClientOptions

    set_up_logging(log_format)
    if forecast is not None:
        sys.exit(_forecast(site, forecast, as_json=as_json))
    options = ClientOptions(log_format, health_port, insecure, chaos or "")
    sys.exit(_run(site, trusted_entities, options))


def _run(site_file: Path, trusted: Path | None, options: ClientOptions) -> int:
    from nognet.supervision.lock import exclusive
    from nognet_client.processes.startup import check_link, prepare, tell_consent, tell_privacy
    from nognet_client.processes.supervisor import supervise

    site = _loaded(site_file, trusted)
    set_up_logging(options.log_format, fields={"site": site.name})
    if options.chaos:
        from nognet_client.rehearsal import chaos_of

        options = replace(options, chaos=chaos_of(site, options.chaos))
    link = check_link(site, insecure=options.insecure)
    tell_consent(site)
    tell_privacy(site)
    with exclusive(site.state, "nognet-client"):
        prepare(site)
        return supervise(site, link, site_file.resolve(), options)


def _forecast(site_file: Path, study_file: Path, *, as_json: bool) -> int:
    """Say what a study would cost; return 14 if this site would not take part in all of it."""
    from nognet.config import load_site, load_study
    from nognet.data.store import open_store
    from nognet.errors import ConsentError
    from nognet_client.forecast.outlook import foresee
    from nognet_client.forecast.words import document, table

    site, study = load_site(site_file), load_study(study_file)
    outlook = foresee(study, site, open_store(site.cache))
    emit(json.dumps(document(outlook), indent=2, allow_nan=False) if as_json else table(outlook))
    return 0 if outlook.is_accepted else ConsentError.exit_code


def _loaded(site_file: Path, trusted: Path | None) -> SiteConfig:
    """Read the configuration; what the command line says of trusted keys goes before it."""
    from nognet.config import load_site

    site = load_site(site_file)
    if trusted is None or site.server is None:
        return site
    server = site.server.model_copy(update={"trusted_entities": trusted.resolve()})
    return site.model_copy(update={"server": server})


@app.command()
def status(
    site: SiteOption = Path("site.yaml"),
    as_json: JsonOption = False,
) -> None:
    """Say what the site's client does: connected or offline since when, last task, last round.

    And what the site accepts and has done. Exit code 0 whatever the state is.
    """
    from nognet.config import load_site
    from nognet_client.consent.words import consent_status
    from nognet_client.processes.site_status import observe_site

    config = load_site(site)
    seen = observe_site(config.state) | {"consent": consent_status(config)}
    if as_json:
        emit(json.dumps(seen, indent=2))
        return
    emit(f"{seen['state']}: {seen['text']}")
    since = f" since {seen['connection_since']}" if "connection_since" in seen else ""
    emit(("connected" if seen["connected"] else "offline") + since)
    for key in ("coordinator", "last_task", "last_round", "pid", "fails_on_purpose"):
        if seen.get(key) is not None:
            emit(f"{key.replace('_', ' ')}: {seen[key]}")
    emit(f"consent: {seen['consent']['text']}")
    for study, done in seen["consent"]["done"].items():
        emit(f"done for {study}: {done['rounds']} rounds, {done['evaluations']} evaluations")


@app.command()
def health(
    site: SiteOption = Path("site.yaml"),
    alive: Annotated[
        bool, typer.Option("--alive", help="Ask only whether it runs, connected or not.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Exit with 0 if the client runs and is connected, with 1 if not; for health checks."""
    from nognet.config import load_site
    from nognet.supervision.lock import holder_of
    from nognet_client.processes.site_status import observe_site

    state = load_site(site).state
    well = holder_of(state) is not None if alive else bool(observe_site(state)["connected"])
    if as_json:
        emit(json.dumps({"healthy": well}))
    else:
        emit("healthy" if well else "not healthy")
    raise typer.Exit(0 if well else 1)


@app.command()
def check_connection(
    site: SiteOption = Path("site.yaml"),
    insecure: InsecureOption = False,
    as_json: JsonOption = False,
) -> None:
    """Try the way to the coordinator, step by step, and name the cause where it ends.

    Exit codes: 0 the coordinator would let this site in; 3 configuration; 9 it can't be reached
    now; 12 keys, certificates, clock or proxy: somebody has to do something.
    """
    from nognet.config import load_site
    from nognet_client.processes.connection_check import check_steps

    set_up_logging()
    failed = None
    steps = []
    for step in check_steps(load_site(site), insecure=insecure):
        steps.append(step)
        if not as_json:
            emit(f"{'ok' if step.error is None else 'FAILED':7} {step.name}: {step.text}")
        failed = step.error or failed
    if as_json:
        emit(json.dumps([step.to_json() for step in steps], indent=2))
    raise typer.Exit(failed.exit_code if failed is not None else 0)


def main() -> None:
    """Run `nognet-client`."""
    run_guarded(app)
