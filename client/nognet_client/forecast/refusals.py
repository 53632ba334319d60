"""What a site's other rules refuse of a study: those of a task, held against a study beforehand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nognet.config import SiteConfig, StudyConfig
from nognet.errors import NognetError
from nognet.fit.checks import check_private
from nognet_client.egress.counts import check_training_patients
from nognet_client.masking.rules import check_can_sum
from nognet_client.rehearsal import check_rehearsal
from nognet_client.request import Request
from nognet_client.site import Site
from nognet_client.spent import check_told_is_charged


@dataclass(frozen=True)
class Refusal:
    """Something that the site refuses whatever its consent says.

    Attributes:
        code: What the coordinator would be told.
        words: What the site's log would say.
    """

    code: str
    words: str


def other_refusals(request: Request) -> tuple[Refusal, ...]:
    """Say what joining or training would be refused for, besides consent and budget."""
    return tuple(_found(request))


def without_impossible_privacy(request: Request) -> tuple[StudyConfig, SiteConfig]:
    """Give study and site as they can be tried: without privacy where training can't have it."""
    study, site = request.study, request.config
    if request.privacy is not None:
        try:
            check_private(study)
        except NognetError:
            off = {"privacy": None}
            return study.model_copy(update=off), site.model_copy(update=off)
    return study, site


def _found(request: Request) -> Iterator[Refusal]:
    study, config = request.study, request.config
    with tempfile.TemporaryDirectory(prefix="nognet-forecast-") as folder:
        trial = config.model_copy(
            update={"state": Path(folder)}
        )  # a simulated site's key: not kept
        checks: tuple[Callable[[], object], ...] = (
            lambda: check_rehearsal(study, config),
            lambda: check_can_sum(study.for_sites(), trial),
            lambda: check_training_patients(Site(config, request.prepared)),
            lambda: check_private(study) if request.privacy is not None else None,
            lambda: check_told_is_charged(study, config),
        )
        for check in checks:
            try:
                check()
            except NognetError as err:
                yield Refusal(err.code, str(err))
