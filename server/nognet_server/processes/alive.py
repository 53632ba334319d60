"""Whether SuperLink answers; asked without Flower, whose import takes a second."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx


def answers(address: str, ca: Path) -> bool:
    """Ask for /health on the control port."""
    try:
        context = ssl.create_default_context(cafile=str(ca))
        response = httpx.get(f"https://{address}/health", verify=context, timeout=2.0)
    except (httpx.HTTPError, OSError):
        return False
    return response.is_success
