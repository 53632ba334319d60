"""The semantic contract: what the numbers mean, agreed before any of them is averaged.

Coordinator and site each derive it from the study with their own software; the site with the ROI
its pairs were really cut with. One differing item refuses the site, and names the item.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

import nognet
from nognet.config import RoiConfig, StudyConfig
from nognet.errors import ContractError
from nognet.metrics.definitions import DEFINITIONS_VERSION

PROTOCOL_VERSION = 5
Contract = dict[str, str]
_MAX_ITEMS = 20_000
_MAX_SHOWN = 60


def contract(study: StudyConfig, *, roi: RoiConfig | None = None) -> Contract:
    """Say in flat items what study and software mean by their numbers.

    Args:
        study: The study, which fixes ROI and network.
        roi: The ROI of the pairs at hand, where it may differ from the study's.

    Returns:
        Item -> text, with one item ``parameter <name>`` for each parameter that travels.
    """
    from nognet.fit.parts import shared_spec

    used = roi if roi is not None else study.roi
    low, high = used.hu_window
    meaning = {
        "protocol": str(PROTOCOL_VERSION),
        "nognet": nognet.__version__,
        "axes": "z, y, x",
        "frame": "LPS, millimetres",
        "spacing_mm": "1 1 1",
        "roi.size_vox": str(used.size_vox),
        "roi.hu_window": f"{low:g} {high:g}",
        "intensity": "HU scaled to [0, 1] by roi.hu_window, clipped",
        "mask": "0 background, 1 nodule",
        "interval": "days",
        "displacement": "voxels of the 1 mm ROI grid, pull-back on the follow-up grid",
        "metric definitions": str(DEFINITIONS_VERSION),
        "training reply": _reply_text(study),
    }
    parameters = {
        f"parameter {tensor.name}": f"{tensor.dtype} {list(tensor.shape)}"
        for tensor in shared_spec(study)
    }
    return {**meaning, **parameters}


def _reply_text(study: StudyConfig) -> str:
    """Say which vectors and which loss a training reply carries under the study's strategy."""
    control = ", control variate" if study.strategy.sends_control else ""
    loss = "; loss of the global weights" if study.strategy.sends_start_loss else ""
    vector = "weights" if study.secure_aggregation is None else "masked update"
    return f"{vector}{control}{loss}"


def contract_hash(items: Mapping[str, str]) -> str:
    """Hash a contract (SHA-256 of its canonical JSON).

    >>> contract_hash({"a": "1", "b": "2"}) == contract_hash({"b": "2", "a": "1"})
    True
    """
    return hashlib.sha256(contract_json(items).encode()).hexdigest()


def contract_json(items: Mapping[str, str]) -> str:
    """Serialise a contract, equal contracts to equal text."""
    return json.dumps(dict(items), sort_keys=True, separators=(",", ":"))


def parse_contract(text: str) -> Contract:
    """Read a contract as it was received.

    Raises:
        ContractError: the text is no JSON object of texts.
    """
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise ContractError("a contract was received that is no JSON", code="contract") from err
    texts = isinstance(items, dict) and all(isinstance(value, str) for value in items.values())
    if not texts or len(items) > _MAX_ITEMS:
        raise ContractError(
            "a contract was received that is no JSON object of texts", code="contract"
        )
    return {str(item): value for item, value in items.items()}


def differing_items(study: Mapping[str, str], site: Mapping[str, str]) -> tuple[str, ...]:
    """Name the items in which two contracts differ, in the study's order, then the site's.

    >>> differing_items({"axes": "z, y, x", "mask": "0 1"}, {"axes": "x, y, z", "mask": "0 1"})
    ('axes',)
    """
    names = [*study, *(item for item in site if item not in study)]
    return tuple(item for item in names if study.get(item) != site.get(item))


def describe_differences(study: Mapping[str, str], site: Mapping[str, str]) -> str:
    """Say which items differ and how, the first five of them; empty text when none does."""
    items = differing_items(study, site)
    shown = [
        f"{_clean(item)} is {_clean(site.get(item, 'absent'))} at the site, "
        f"{_clean(study.get(item, 'absent'))} in the study"
        for item in items[:5]
    ]
    more = [f"and {len(items) - 5} more items"] if len(items) > 5 else []
    return "; ".join(shown + more)


def check_same(study: Mapping[str, str], site: Mapping[str, str]) -> None:
    """Refuse a site whose contract differs.

    Raises:
        ContractError: with every differing item in the message and the first one in the code.
    """
    items = differing_items(study, site)
    if items:
        raise ContractError(
            f"site and study disagree: {describe_differences(study, site)}; prepare the site's "
            "pairs with the study's settings and install the study's release of nognet",
            code=item_code(items[0]),
        )


def item_code(item: str) -> str:
    """Turn an item's name into a short code that may leave a site.

    >>> item_code("roi.size_vox")
    'roi-size-vox'
    """
    return re.sub(r"[^a-z0-9]+", "-", item.lower()).strip("-")[:64] or "contract"


def _clean(text: str) -> str:
    """Make foreign text safe to log: printable ASCII, short."""
    printable = "".join(c if " " <= c <= "~" else "?" for c in text)
    return printable if len(printable) <= _MAX_SHOWN else printable[: _MAX_SHOWN - 3] + "..."
