"""OpenID Connect issuers: what they say of themselves, their keys, their tokens, and whether a token is theirs."""
