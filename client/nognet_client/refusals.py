"""Why the coordinator does not use this site, in the hospital's own log and words.

What travels is a code, and no text: the words are this release's.
"""

from __future__ import annotations

from nognet_client.egress.counts import n_patients
from nognet_client.site import Site

_WORDS = {
    "registered-name": "its key is registered under another name: make `name` in site.yaml it",
    "name-taken": "another site takes part under this name: change `name` in one site.yaml",
    "quarantined": "too many of its rounds could not be used: `nognet-server release` ends that",
    "withdrawn": "it has withdrawn from this run",
    "fails-on-purpose": "it was started with --chaos, and the study is no rehearsal",
    "no-training-pairs": "it has no training pairs: `nognet check` says why",
    "too-few-patients": "it has fewer training patients than egress.min_patients",
}


def refusal_words(code: str) -> str:
    """Say what a coordinator's code means.

    >>> refusal_words("roi-size-vox")
    "'roi-size-vox' differs or is not as it should be"
    """
    return _WORDS.get(code, f"'{code}' differs or is not as it should be")


def unusable(site: Site) -> str:
    """Say why no coordinator will use the site, as far as its own data tell; empty if they don't.

    The coordinator decides by the counts that the site sends it; this is what it will find.
    """
    found, least = n_patients(site.prepared, "train"), site.config.egress.min_patients
    if not found:
        return _WORDS["no-training-pairs"]
    if found < least:
        return f"{_WORDS['too-few-patients']} ({found}, expected at least {least})"
    return ""
