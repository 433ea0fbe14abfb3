"""Tokens that want to be taken for an issuer's: none is."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from bessemer.drivers.oidc import verify
from bessemer.drivers.oidc.protocol import ALGORITHMS
from bessemer.drivers.oidc.verify import Rules, TokenRefused, keys_of, read, verified

NOW = 1_750_000_000.0
ISSUER = "https://id.example.org"
RSA = RSAKey.generate_key(2048, {"kid": "r1"})
EC = ECKey.generate_key("P-256", {"kid": "e1"})
ED = OKPKey.generate_key("Ed25519", {"kid": "o1"})
MALLORY = RSAKey.generate_key(2048, {"kid": "r1"})
KEYS = keys_of([key.as_dict(private=False) for key in (RSA, EC, ED)])
RULES = Rules(issuer=ISSUER, algorithms=ALGORITHMS, audiences=frozenset({"us", "us-cli"}), access=frozenset({"us-api"}))
GOOD: dict[str, Any] = {"iss": ISSUER, "sub": "ada", "aud": "us", "iat": NOW, "exp": NOW + 600}


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(claims: Mapping[str, Any] | bytes = GOOD, *, key: Any = RSA, alg: str = "RS256", **header: Any) -> str:
    protected = {"alg": alg, "kid": "r1", "typ": "JWT", **header}
    protected = {name: value for name, value in protected.items() if value is not None}
    body = claims if isinstance(claims, bytes) else orjson.dumps(claims)
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
    registry.max_header_length = 1 << 20
    return jws.serialize_compact(protected, body, key, registry=registry)


def judged(token: str, *, now: float = NOW, rules: Rules = RULES, keys: Any = KEYS) -> Mapping[str, Any]:
    return verified(read(token), keys, rules=rules, now=now)


def check_refused(token: str, **options: Any) -> str:
    """Why it is."""
    with pytest.raises(TokenRefused) as error:
        judged(token, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("alg", "key"),
    [*((alg, RSA) for alg in ALGORITHMS if alg[:2] in ("RS", "PS")), ("ES256", EC)],
)
def test_what_an_issuer_signs_counts(alg: str, key: Any) -> None:
    assert judged(signed(key=key, alg=alg, kid=key.kid))["sub"] == "ada"


def test_an_edwards_key_counts_too() -> None:
    for alg in ("EdDSA", "Ed25519"):
        text = f"{part({'alg': alg, 'kid': 'o1'})}.{part(GOOD)}"
        assert judged(f"{text}.{part(ED.private_key.sign(text.encode()))}")["sub"] == "ada"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 0, ["RS256"], {"RS256": 1}, "HS256", "dir"])
@pytest.mark.parametrize("signature", ["", "e30", "AA"])
def test_no_signature_is_none(alg: Any, signature: str) -> None:
    check_refused(f"{part({'alg': alg, 'kid': 'r1'})}.{part(GOOD)}.{signature}")
    check_refused(f"{part({'alg': alg})}.{part(GOOD)}.{signature}")


def test_a_public_key_is_no_shared_secret() -> None:
    """HS256 by what everybody knows of the issuer, in each form that a library might take for the secret."""
    public = RSA.public_key
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pkcs1 = serialization.PublicFormat.PKCS1
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    forms = [public.public_bytes(encoding, form) for encoding in (pem, der) for form in (spki, pkcs1)]
    jwk = RSA.as_dict(private=False)
    forms += [orjson.dumps(jwk), str(jwk["n"]).encode(), b"", forms[0].strip()]
    for alg, digest in (("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", hashlib.sha512)):
        for secret in forms:
            for kid in ("r1", None):
                text = f"{part({'alg': alg, 'kid': kid} if kid else {'alg': alg})}.{part(GOOD)}"
                mac = hmac.new(secret, text.encode(), digest).digest()
                assert "not taken" in check_refused(f"{text}.{part(mac)}")
    assert keys_of([{"kty": "oct", "k": "c2VjcmV0", "kid": "r1", "alg": "HS256"}]) == ()


def test_an_algorithm_belongs_to_its_key() -> None:
    assert check_refused(signed(key=EC, alg="ES256", kid="r1"))
    assert check_refused(signed(kid="e1"))
    few = Rules(issuer=ISSUER, algorithms=("ES256",), audiences=RULES.audiences)
    assert "not taken" in check_refused(signed(), rules=few), "the issuer says that it does not sign so"
    only = keys_of([{**RSA.as_dict(private=False), "alg": "RS512"}])
    assert check_refused(signed(), keys=only), "the key is for another algorithm"
    for odd in ({"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": "verify"}, {"kid": 1}, {"kid": "x" * 300}):
        assert keys_of([{**RSA.as_dict(private=False), **odd}]) == ()


def test_weak_and_odd_keys_are_left_out() -> None:
    odd: list[dict[str, Any]] = [
        {},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": 5, "e": []},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": ["P-256"], "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
        {"kty": None},
    ]
    assert keys_of(odd) == ()


@pytest.mark.parametrize("kid", ["../../etc/passwd", "r1' OR '1'='1", "r1\x00", "/dev/null", "https://evil.example/k"])
def test_a_kid_is_compared_and_nothing_else(kid: str) -> None:
    assert "no such key" in check_refused(signed(kid=kid))
    assert "no such key" in check_refused(signed(key=MALLORY, kid=kid))


@pytest.mark.parametrize("kid", ["k" * 257, "k" * 12_000, 1, ["r1"], {"r1": 1}, True])
def test_a_kid_is_a_short_word(kid: Any) -> None:
    assert check_refused(f"{part({'alg': 'RS256', 'kid': kid})}.{part(GOOD)}.{part(b'x' * 256)}")


def test_without_a_kid_only_one_key_can_be_meant() -> None:
    assert judged(signed(kid=None), keys=KEYS)["sub"] == "ada", "one key of that kind"
    two = (*KEYS, *keys_of([MALLORY.as_dict(private=False)]))
    assert check_refused(signed(kid=None), keys=two)


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": MALLORY.as_dict(private=False)},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"b64": False},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
    ],
)
@pytest.mark.parametrize("key", [RSA, MALLORY], ids=["theirs", "mallory"])
def test_a_token_says_nothing_of_its_own_key(header: dict[str, Any], key: Any) -> None:
    text = f"{part({'alg': 'RS256', 'kid': 'r1', **header})}.{part(GOOD)}"
    signature = key.private_key.sign(text.encode(), PKCS1v15(), SHA256())
    assert check_refused(f"{text}.{part(signature)}") == "it brings a key or an extension of its own"


def test_the_wrong_issuers_key() -> None:
    assert "signature" in check_refused(signed(key=MALLORY))
    assert "another issuer" in check_refused(signed({**GOOD, "iss": "https://id.example.org/"}))
    assert "another issuer" in check_refused(signed({**GOOD, "iss": "https://ID.example.org"}))
    assert "another issuer" in check_refused(signed({**GOOD, "iss": [ISSUER]}))
    assert "another issuer" in check_refused(signed({name: value for name, value in GOOD.items() if name != "iss"}))


def test_nothing_stands_twice() -> None:
    twice = b'{"iss":"%s","sub":"ada","sub":"eve","aud":"us","iat":%d,"exp":%d}'
    claims = twice % (ISSUER.encode(), int(NOW), int(NOW) + 600)
    assert check_refused(signed(claims)) == "it cannot be read"
    nested = orjson.dumps(GOOD)[:-1] + b',"x":{"a":1,"a":2}}'
    assert check_refused(signed(nested)) == "it cannot be read"
    header = part(b'{"alg":"RS256","alg":"none","kid":"r1"}')
    assert check_refused(f"{header}.{part(GOOD)}.AA") == "it cannot be read"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        "..",
        "e30.e30.",
        "e30.e30.e30",
        "e30=.e30.e30",
        " e30.e30.e30",
        "e30.e30.e30\n",
        "W10.W10.W10",
        part(b"\xff\xfe") + ".e30.e30",
        part(b"[" * 6000) + ".e30.e30",
        part(b'{"a":' * 2000) + ".e30.e30",
        part(b'{"a":NaN}') + ".e30.e30",
        part(b'{"a":' + b"1" * 5000 + b"}") + ".e30.e30",
        "A" * (17 << 10) + ".e30.e30",
        "é.e30.e30",
    ],
)
def test_what_is_no_token(token: str) -> None:
    check_refused(token)


def test_a_huge_token_is_not_even_read() -> None:
    assert check_refused(signed({**GOOD, "groups": ["g" * 40] * 500})) == "it is too long"
    assert check_refused(signed(x="y" * 20_000)) == "it is too long"


CHANGES: list[dict[str, Any]] = [
    {"exp": NOW - 61},
    {"exp": None},
    {"exp": "never"},
    {"exp": True},
    {"exp": 1e300},
    {"exp": -1},
    {"exp": [NOW + 600]},
    {"nbf": NOW + 61},
    {"nbf": "now"},
    {"iat": NOW + 61},
    {"iat": None},
    {"iat": NOW - 86_400 - 61, "exp": NOW + 600},
    {"aud": "them"},
    {"aud": ["them"]},
    {"aud": []},
    {"aud": None},
    {"aud": {"us": 1}},
    {"aud": ["us", 1], "azp": "us"},
    {"aud": ["us", "them"]},
    {"aud": ["us", "them"], "azp": "them"},
    {"azp": "them"},
    {"aud": ["us"] * 17, "azp": "us"},
    {"aud": "us "},
    {"sub": None},
    {"sub": ""},
    {"sub": 7},
    {"sub": "s" * 256},
    {"events": {verify.LOGOUT_EVENT: {}}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_claims_that_do_not_fit(change: dict[str, Any]) -> None:
    claims = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    assert check_refused(signed(claims))


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW - 59},
        {"nbf": NOW + 59},
        {"iat": NOW + 59},
        {"aud": ["us", "them"], "azp": "us"},
        {"aud": ["us-cli"]},
        {"azp": "us-cli"},
        {"sub": "s" * 255},
        {"exp": NOW + 600.5},
    ],
    ids=str,
)
def test_clocks_may_differ_by_a_minute_and_several_may_be_meant(change: dict[str, Any]) -> None:
    assert judged(signed({**GOOD, **change}))


def test_what_a_token_is_for() -> None:
    assert judged(signed(typ=None))
    assert judged(signed(typ="jwt"))
    for typ in ("logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", 1, ["JWT"]):
        assert "another purpose" in check_refused(f"{part({'alg': 'RS256', 'kid': 'r1', 'typ': typ})}.{part(GOOD)}.AA")
    assert "somebody else" in check_refused(signed(typ="at+jwt")), "an access token for a client is not for us"
    assert judged(signed({**GOOD, "aud": "us-api"}, typ="at+jwt"))


def test_who_has_left_is_said_by_a_token_of_its_own() -> None:
    events = {verify.LOGOUT_EVENT: {}}
    said = {"iss": ISSUER, "aud": "us", "iat": NOW, "jti": "j", "events": events, "sub": "ada"}

    def leave(claims: dict[str, Any], **header: Any) -> Mapping[str, Any]:
        kept = {name: value for name, value in claims.items() if value is not None}
        return verify.logout(read(signed(kept, **header)), KEYS, rules=RULES, now=NOW)

    assert leave(said)["sub"] == "ada"
    assert leave({**said, "sub": None, "sid": "s1"}, typ="logout+jwt")["sid"] == "s1"
    wrong: list[dict[str, Any]] = [
        {"events": None},
        {"events": {}},
        {"events": {verify.LOGOUT_EVENT: "x"}},
        {"events": [verify.LOGOUT_EVENT]},
        {"nonce": "n"},
        {"sub": None},
        {"sub": 7},
        {"sid": ""},
        {"jti": None},
        {"aud": "them"},
        {"iss": "https://evil.example"},
        {"iat": NOW + 61},
        {"iat": NOW - 601},
        {"exp": NOW - 61},
    ]
    for change in wrong:
        with pytest.raises(TokenRefused):
            leave({**said, **change})
    with pytest.raises(TokenRefused):
        leave(GOOD)
    with pytest.raises(TokenRefused):
        leave(said, key=MALLORY)
    assert check_refused(signed(said)), "nor does it sign anybody in"


@given(st.text(max_size=200))
def test_any_text_is_refused_in_words(token: str) -> None:
    check_refused(token)


def _mangled(token: str, at: int, letter: str) -> str:
    at %= len(token)
    return token[:at] + letter + token[at + 1 :]


@given(at=st.integers(0, 2000), letter=st.sampled_from("ABab01-_.=\n"))
def test_one_letter_more_or_less_is_another_token(at: int, letter: str) -> None:
    token = signed()
    other = _mangled(token, at, letter)
    if other != token:
        try:
            claims = judged(other)
        except TokenRefused:
            return
        # The last letter of a part carries bits that no byte has: the same bytes, written otherwise.
        assert claims == GOOD
        assert [len(one) for one in other.split(".")] == [len(one) for one in token.split(".")]
