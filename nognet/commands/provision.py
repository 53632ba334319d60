"""`nognet provision`: the coordinator's certificates, the sites' keys, and their register."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nognet.console import emit, say

app = typer.Typer(
    no_args_is_help=True,
    help="Keys and certificates: coordinator (CA, server certificate), site (key), register.",
)


@app.command()
def coordinator(
    out: Annotated[Path, typer.Option(help="Folder of the coordinator's files.")] = Path("pki"),
    host: Annotated[
        list[str] | None,
        typer.Option(help="DNS name or IP address that the sites dial; may be repeated."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Validity of the server certificate.")] = 825,
    renew: Annotated[
        bool, typer.Option("--renew", help="Renew the server certificate from the existing CA.")
    ] = False,
) -> None:
    """Make the CA and the server certificate, at the coordinator."""
    from nognet.pki.authority import create_coordinator, renew_server_certificate
    from nognet.pki.checks import check_server_files

    make = renew_server_certificate if renew else create_coordinator
    files = make(out, tuple(host or ()), days=days)
    checked = check_server_files(files.ca, files.certificate, files.key)
    emit(f"{files.certificate}: valid for {', '.join(checked.hosts)} until {checked.ends:%Y-%m-%d}")
    if renew:
        say("Restart nognet-server with it; the sites need nothing new.")
        return
    say(f"Send {files.ca} to every site (it is no secret).")
    say(f"Keep {files.ca_key} off the server, where you find it again: it renews the certificate.")


@app.command()
def site(
    name: Annotated[str, typer.Option(help="Name of the site, as in its site.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the key.")] = Path("keys"),
) -> None:
    """Make the site's key, at the site; the private part never leaves it."""
    from nognet.pki.site_keys import create_site_key, read_public_key

    private, public = create_site_key(name, out)
    fingerprint = read_public_key(public).fingerprint
    emit(f"{public}: {fingerprint}")
    say(f"Send {public} to the coordinator, and read the fingerprint to them over the telephone.")
    say(f"Keep {private} here; site.yaml names it as server.key.")


@app.command()
def register(
    public_key: Annotated[Path, typer.Argument(help="The .pub file that a site sent.")],
    sites: Annotated[Path, typer.Option(help="Folder of registered keys.")] = Path("pki/sites"),
    name: Annotated[
        str | None, typer.Option(help="Name of the site; by default the key's comment.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the key of a site that made a new one.")
    ] = False,
) -> None:
    """Register a site's public key, at the coordinator."""
    from nognet.pki.site_keys import register_site

    registered = register_site(sites, public_key, name=name, replace=replace)
    emit(f"{registered.name}: {registered.fingerprint}")
    say("Compare the fingerprint with what the site read to you before you start a run.")
