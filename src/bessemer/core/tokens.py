"""What is derived from secrets on both sides of a wire, so that both derive it alike."""

from __future__ import annotations

import hashlib
import hmac


def replica_secret(gateway_key: bytes, claim_uid: str) -> str:
    """What the gateway shows a replica: HMAC-SHA256(gateway key, claim uid), hexadecimal."""
    return hmac.new(gateway_key, claim_uid.encode(), hashlib.sha256).hexdigest()


def token_digest(token: str) -> str:
    """What an ApiKey keeps of its token: SHA-256, hexadecimal. Any text may be asked after."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
