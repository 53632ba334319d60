"""The tree of errors, each with the exit code that its command ends with.

    NognetError            1   anything that is ours and fits nowhere below
    |-- ConfigError        3   a YAML file is wrong: every fault in it, with its path
    |-- SiteDataError      4   a hospital's own files can't be used
    |   `-- GeometryError  5   a series or a mask has a geometry that may not be trusted
    |-- TrainingError      6   training went wrong (a loss that is not finite, no pairs)
    |-- WireError          7   a message, a model file or a checkpoint is not what it has to be
    |   `-- ContractError  8   site and study disagree on what the numbers mean
    |-- FederationError    9   a run can't go on (too few sites, no usable reply)
    |-- PrivacyError      10   a privacy setting that can't be met
    |   `-- PrivacyBudgetError 11
    |-- ProvisionError    12   keys or certificates are missing, expired or don't match
    |-- EgressError       13   something may not leave the site, or no record of it can be kept
    `-- ConsentError      14   a study is outside what the site accepts

2 is a wrong command line, 130 an interrupt (Ctrl-C), as usual on Unix.

A message says what failed, where, what was found, what was expected and what to do. It may name a
site's own paths, so it stays at the site: what may leave is `NognetError.public_code` alone.
"""

from __future__ import annotations

from typing import ClassVar


class NognetError(Exception):
    """An error with a message for the user, an exit code, and a code that may leave the site."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        """Keep the message and the stable short code (lower case, hyphens) of this failure."""
        super().__init__(message)
        self.code = code if code is not None else self.default_code

    @property
    def public_code(self) -> str:
        """Class and code, free of any text from the site: ``GeometryError:sheared``."""
        return f"{type(self).__name__}:{self.code}"


class ConfigError(NognetError):
    """A configuration file is wrong; the message lists every fault with its dotted path."""

    exit_code = 3
    default_code = "config"


class SiteDataError(NognetError):
    """A hospital's files can't be read or don't hold what they should."""

    exit_code = 4
    default_code = "site-data"


class GeometryError(SiteDataError):
    """A series or mask whose geometry may not be trusted (sheared, gapped, duplicated ...)."""

    exit_code = 5
    default_code = "geometry"


class TrainingError(NognetError):
    """Training can't go on: no pairs, or a loss or gradient that is not finite."""

    exit_code = 6
    default_code = "training"


class WireError(NognetError):
    """A message, a model file or a checkpoint is damaged or not of the expected form."""

    exit_code = 7
    default_code = "wire"


class ContractError(WireError):
    """Site and study disagree on what the numbers mean (ROI, HU window, parameters ...)."""

    exit_code = 8
    default_code = "contract"


class FederationError(NognetError):
    """The run can't go on: too few sites joined, or no usable reply came back."""

    exit_code = 9
    default_code = "federation"


class PrivacyError(NognetError):
    """A privacy setting is unsound or can't be met."""

    exit_code = 10
    default_code = "privacy"


class PrivacyBudgetError(PrivacyError):
    """The step asked for would spend more than the privacy budget allows."""

    exit_code = 11
    default_code = "privacy-budget"


class ProvisionError(NognetError):
    """Keys or certificates are missing, expired or don't belong together."""

    exit_code = 12
    default_code = "provision"


class EgressError(NognetError):
    """The egress gate lets a message not leave, or its audit log can't be kept or was changed."""

    exit_code = 13
    default_code = "egress"


class ConsentError(NognetError):
    """A study asks for something outside the site's consent, or that no study may ask for."""

    exit_code = 14
    default_code = "consent"
    outside_hours: ClassVar[str] = "consent-hours"
    """The one code that passes by itself: the coordinator may ask again later."""


INTERRUPTED_EXIT_CODE = 130
