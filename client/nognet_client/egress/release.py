"""The gate's shell: check a message, record it, and only then hand it over to leave."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from nognet.config import SiteConfig, load_site
from nognet.errors import ConfigError, EgressError, NognetError
from nognet.wire.fields import TOKEN
from nognet.wire.records import ROUND_KEY, SECURE_ACTION, SHARE_ACTION
from nognet_client.egress.forms import Form
from nognet_client.egress.gate import check_content
from nognet_client.egress.receipt import About, Facts, error_receipt, receipt_of
from nognet_client.egress.record import record

_log = logging.getLogger("nognet.client")
SITE_CONFIG = "site-config"
UNKNOWN = "unknown"
_KINDS = {"query": "join", f"query.{SHARE_ACTION}": "share", "train": "train"}
_KINDS |= {f"query.{SECURE_ACTION}": "secure", f"train.{SECURE_ACTION}": "train"}


@dataclass(frozen=True)
class Outgoing:
    """A message that wants to leave.

    Attributes:
        content: As it will be sent.
        form: What exactly it may hold.
        about: Which message it is.
        facts: For its receipt.
    """

    content: RecordDict
    form: Form
    about: About
    facts: Facts


def release(site: SiteConfig, outgoing: Outgoing) -> RecordDict:
    """Let a message out: its content, once it is checked and recorded.

    Raises:
        EgressError: it holds something that may not leave, or no record can be kept of it.
    """
    check_content(outgoing.content, outgoing.form)
    receipt = receipt_of(site.name, outgoing.about, outgoing.content, outgoing.facts)
    record(site.state, outgoing.about, receipt)
    return outgoing.content


def released_code(message: Message, context: Context, public_code: str) -> str:
    """Record that a task ends with an error, and give the class and code that may leave.

    Where the site's configuration can't be read, there is no place to record it in; class and code
    are all that leaves then as well. `nognet_client.guard.told` sees to what is raised here.
    """
    about = _about(message)
    try:
        site = site_of(context)
    except (NognetError, OSError):
        _log.warning("without a site.yaml that can be read, no receipt of '%s'", public_code)
        return public_code
    try:
        record(site.state, about, error_receipt(site.name, about, public_code))
    except EgressError as err:
        _log.error("%s (the coordinator is told only '%s')", err, err.public_code)
        return err.public_code
    return public_code


def site_of(context: Context) -> SiteConfig:
    """Read the configuration of the site that the node serves.

    Raises:
        ConfigError: the node names none, or it is wrong.
    """
    path = context.node_config.get(SITE_CONFIG)
    if not isinstance(path, str):
        raise ConfigError(
            f"the node's configuration lacks '{SITE_CONFIG}'; start the site with nognet-client"
        )
    return load_site(Path(path))


def _about(message: Message) -> About:
    """Say which task an error answers; nothing of the task is taken as it comes."""
    run, number = UNKNOWN, None
    records = message.content.config_records.values() if message.has_content() else ()
    for found in records:
        token, round_number = found.get("run"), found.get(ROUND_KEY)
        if isinstance(token, str) and TOKEN.fullmatch(token):
            run = token
        if isinstance(round_number, int) and 0 <= round_number < 10**9:
            number = round_number
    known = _KINDS.get(message.metadata.message_type, "evaluate")
    return About(f"{re.sub('[^a-z]', '', known)}-error", run, number)
