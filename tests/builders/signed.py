"""Requests to the fleet API, signed as Flower's SuperNode signs them."""

from __future__ import annotations

import base64
import datetime as dt

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key as a site's is."""
    return ec.generate_private_key(ec.SECP384R1())


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Give the public part as Flower sends it."""
    return public_key_to_bytes(key.public_key())


def signed_headers(
    key: ec.EllipticCurvePrivateKey,
    at: dt.datetime | None = None,
    *,
    claimed: ec.EllipticCurvePrivateKey | None = None,
) -> dict[str, str]:
    """Sign a time with `key`, in the name of `claimed`."""
    timestamp = (at or dt.datetime.now(dt.UTC)).isoformat()
    signature = sign_message(key, timestamp.encode("ascii"))
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(pem(claimed or key)).decode("ascii"),
        TIMESTAMP_HEADER: timestamp,
        FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(signature).decode("ascii"),
    }


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Give headers as ASGI has them."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
