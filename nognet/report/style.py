"""Colours and lettering of all figures: Okabe and Ito's colour-blind-safe palette."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

PREDICTOR_INKS = {
    "federated": "#0072B2",
    "personalised": "#CC79A7",
    "local": "#009E73",
    "centralised": "#56B4E9",
    "copy": "#5F6368",
    "isotropic": "#E69F00",
}
PREDICTOR_MARKERS = {
    "federated": "o",
    "personalised": "^",
    "local": "v",
    "centralised": "P",
    "copy": "s",
    "isotropic": "D",
}
SITE_INKS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SITE_DASHES = ("-", "--", "-.", ":")
BASELINE_INK = "#F0E442"
TRUTH_INK = "#56B4E9"
PREDICTED_INK = "#E69F00"
OTHER_INK = "#999999"
GRID_INK = "#E3E6EA"
TEXT_INK = "#22262B"


def predictor_ink(name: str) -> str:
    """Give a predictor's colour."""
    return PREDICTOR_INKS.get(name, OTHER_INK)


def site_ink(index: int) -> str:
    """Give a site's colour by its place in the order of names."""
    return SITE_INKS[index % len(SITE_INKS)]


def site_dashes(index: int) -> str:
    """Give a site's line style: another one once the colours are used up."""
    return SITE_DASHES[(index // len(SITE_INKS)) % len(SITE_DASHES)]


def figure_style() -> AbstractContextManager[None]:
    """Set matplotlib's style for a `with` block, and leave the process's own as it was."""
    import matplotlib as mpl

    return mpl.rc_context(cast("Any", _SETTINGS))


_SETTINGS = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.parse_math": False,  # names come from outside
    "text.color": TEXT_INK,
    "axes.edgecolor": "#9AA0A6",
    "axes.labelcolor": TEXT_INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": False,
    "grid.color": GRID_INK,
    "grid.linewidth": 0.7,
    "xtick.color": TEXT_INK,
    "ytick.color": TEXT_INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "svg.fonttype": "none",
    "svg.hashsalt": "nognet",
}
