"""What is derived from secrets, or asked of them, on both sides of a wire, so that both do it alike."""

from __future__ import annotations

import hashlib
import hmac

from bessemer.core.errors import Cause, Invalid

PASSWORD_LENGTH_MIN, PASSWORD_LENGTH_MAX = 10, 1024


def replica_secret(gateway_key: bytes, claim_uid: str) -> str:
    """What the gateway shows a replica: HMAC-SHA256(gateway key, claim uid), hexadecimal."""
    return hmac.new(gateway_key, claim_uid.encode(), hashlib.sha256).hexdigest()


def token_digest(token: str) -> str:
    """What is kept of a token that is a random secret (an ApiKey's, a session's, a join's): SHA-256, hexadecimal. Any
    text may be asked after."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def judged_password(password: str) -> str:
    """The password. Raises Invalid for one that is too short or too long."""
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        words = f"a password has {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters"
        raise Invalid(words, [Cause("password", words)])
    return password
