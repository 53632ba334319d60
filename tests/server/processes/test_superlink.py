"""The control token, without a network."""

from __future__ import annotations

import pytest
from flwr.common.constant import ACCESS_TOKEN_KEY
from nognet_server.processes.superlink import ControlToken


@pytest.mark.parametrize("wrong", [[], [(ACCESS_TOKEN_KEY, "")], [(ACCESS_TOKEN_KEY, "tokem")]])
def test_a_wrong_token_is_refused(wrong: list[tuple[str, str]]) -> None:
    assert ControlToken("token").validate_tokens_in_metadata(wrong) == (False, None)


def test_the_right_token_is_admitted() -> None:
    metadata = [(ACCESS_TOKEN_KEY, b"token")]
    admitted, account = ControlToken("token").validate_tokens_in_metadata(metadata)
    assert admitted
    assert account is not None
