"""A site that leaves a secure sum at a step."""

from __future__ import annotations

from typing import Any

import pytest


class Leaving:
    """A site's app that answers no more from a step on, in a round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, site: str, step: str) -> None:
        """Let it answer no more from this step of round 1 on."""
        from nognet_client import app

        secure, masked = app.secure_step, app.masked_train

        def leaves(task: Any, at: Any, *more: Any) -> Any:
            number = getattr(task, "round_number", None) or task.task.round_number
            now = getattr(task, "step", "train")
            if at.config.name == site and number == 1 and now == step:
                raise MemoryError
            return secure(task, at) if now != "train" else masked(task, at, *more)

        monkeypatch.setattr(app, "secure_step", leaves)
        monkeypatch.setattr(app, "masked_train", leaves)
