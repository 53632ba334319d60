"""Rehearsals and real runs keep apart: a site is for the one or for the other."""

from __future__ import annotations

from nognet.config import SiteConfig, StudyConfig
from nognet.config.chaos import parse_own_chaos
from nognet.errors import ConfigError


def check_rehearsal(study: StudyConfig, site: SiteConfig) -> None:
    """Refuse a rehearsal at a site of real runs, and a real run at a site for rehearsals.

    Raises:
        ConfigError: only one of the two says `rehearsal: true`.
    """
    if study.rehearsal == site.rehearsal:
        return
    if study.rehearsal:
        raise ConfigError(
            f"study '{study.name}' is a rehearsal, in which sites fail on purpose; this site takes "
            "part in real runs only. A site for trials says `rehearsal: true` in its site.yaml",
            code="rehearsal",
        )
    raise ConfigError(
        f"site.yaml says `rehearsal: true`, study '{study.name}' is a real one: a site for trials "
        "takes part in rehearsals only",
        code="no-rehearsal",
    )


def chaos_of(site: SiteConfig, text: str) -> str:
    """Read what `--chaos` of `nognet-client` inflicts on this site; empty where nothing does.

    Args:
        site: The site.
        text: ``drop@3, slow x5``; or the list of all sites, ``drop:site_b@3, slow:site_a x5``.

    Raises:
        ConfigError: the site is not for rehearsals, or a fault can't be read.
    """
    if not site.rehearsal:
        raise ConfigError(
            "--chaos: faults are inflicted in rehearsals only, and site.yaml does not say "
            "`rehearsal: true`; never set it where patients' scans are trained on in earnest",
            code="no-rehearsal",
        )
    return ", ".join(map(str, parse_own_chaos(text, site.name)))
