"""IdentityProvider: who vouches for people besides us, and under which prefix they are known here.

An OpenID issuer that is named here may sign people in: the portal by a code, command lines by a browser or a device,
and any client by a bearer that the issuer signed. Invariants: what an issuer says is hostile input, bounded and judged
by the driver; a person's name here is ``PREFIX.claim`` and a group's ``PREFIX:claim``, so that two providers cannot
speak of one person; of two that claim one prefix or one issuer the older counts. The client's secret is sealed, never
part of the object. A provider that is disabled or gone vouches for nobody from that moment. It is no person: see User.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from bessemer.core.clock import epoch, rfc3339
from bessemer.core.errors import Cause, DriverError, NotFound
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import (
    ALL,
    ApiModel,
    Column,
    Done,
    Kind,
    Outcome,
    Resource,
    Status,
    Wait,
    keyed_by,
    values_apart,
)
from bessemer.drivers.ldap.protocol import Place
from bessemer.drivers.oidc.protocol import Reach, failed
from bessemer.kinds.context import Context
from bessemer.kinds.fields import ShortText, at, duplicates, label_problems, unchangeable
from bessemer.kinds.tenancy.session import LABEL_PROVIDER, Session

NAME_LENGTH_MAX = 32
URL_LENGTH_MAX = 512
READ_SECONDS = 3600.0

DEADLINES: Mapping[str, float] = {"Pending": 120.0, "Failing": 600.0}
"""An issuer that does not answer is asked again; for longer than this somebody should look at it."""

Word = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,256}$")]
"""Printable ASCII without spaces: an id, a scope, a claim's name."""
Dn = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,1024}$")]
OptionalDn = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{0,1024}$")]
Terms = Annotated[str, StringConstraints(pattern=r"^\([^\x00-\x1f]{1,1022}\)$")]
"""A filter of LDAP (RFC 4515) with ``{}`` where a value is put."""
Prefix = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?)?$", max_length=32)]


class RequiredClaim(ApiModel):
    claim: Word = Field(description="The claim's name.")
    value: ShortText = Field(description="What it must be, or have among its values.")


class OidcSpec(ApiModel):
    issuer: str = Field(
        description="The issuer's URL, letter by letter as it stands in its tokens.", max_length=URL_LENGTH_MAX
    )
    client_id: Word = Field(description="As whom the portal asks; its secret is set by the subresource clientsecret.")
    cli_client_id: Word | None = Field(
        None, description="The public client of command lines; clientId where that has no secret."
    )
    scopes: list[Word] = Field(
        default=["openid", "profile", "email"],
        description="What is asked for at sign-in; openid among it.",
        max_length=32,
        json_schema_extra=values_apart(),
    )
    audiences: list[Word] = Field(
        default_factory=list,
        description="For whom else a bearer may have been made: of access tokens, these alone count.",
        max_length=16,
        json_schema_extra=values_apart(),
    )
    username_claim: Word = Field(
        "preferred_username", description="The claim that a person is named by; email only where it is verified."
    )
    fold_case: bool = Field(
        False, description="The issuer takes Ada and ada for one person: names are written small here."
    )
    groups_claim: Word = Field("groups", description="The claim that lists a person's groups.")
    required_claims: list[RequiredClaim] = Field(
        default_factory=list,
        description="Claims that a token must have, with these values.",
        max_length=16,
        json_schema_extra=keyed_by("claim"),
    )
    create_users: bool = Field(
        True, description="Whoever comes for the first time becomes a User; else only who is one already is let in."
    )
    ca_bundle: str = Field(
        "", description="Authorities (PEM) of the issuer's own, in place of the machine's.", max_length=65_536
    )
    allow_private_address: bool = Field(
        False, description="The issuer may stand in a private network or on this machine."
    )
    allow_loopback_http: bool = Field(
        False, description="Plain http to this machine's own loopback, to try things out; needs allowPrivateAddress."
    )


class LdapSpec(ApiModel):
    url: str = Field(
        description="ldaps://HOST[:PORT], or ldap://HOST[:PORT] by StartTLS; never without TLS.",
        max_length=URL_LENGTH_MAX,
    )
    ca_bundle: str = Field(
        "", description="Authorities (PEM) of the directory's own, in place of the machine's.", max_length=65_536
    )
    bind_dn: ShortText = Field(
        "", description="As whom we look people up; its password is set by the subresource clientsecret."
    )
    user_base: Dn = Field(description="Below which people are.")
    user_filter: Terms = Field("(uid={})", description="Who is meant; {} is what was typed. (sAMAccountName={}) in AD.")
    name_attribute: Word = Field("uid", description="What somebody is called here; sAMAccountName in AD.")
    id_attribute: Word = Field(
        "entryUUID", description="What names them for good, whatever they are called; objectGUID in AD."
    )
    group_base: OptionalDn = Field("", description="Below which groups are; nobody has groups where not given.")
    group_filter: Terms = Field("(member={})", description="The groups of a member; {} is the member's DN.")
    group_attribute: Word = Field("cn", description="What a group is called here.")
    nested: Literal["none", "walk", "in-chain"] = Field(
        "walk", description="Groups in groups: not at all, asked one by one, or by Active Directory itself."
    )
    timeout_seconds: float = Field(5.0, gt=0, le=30, description="How long each answer may take.")
    create_users: bool = Field(
        True, description="Whoever comes for the first time becomes a User; else only who is one already is let in."
    )


class IdentityProviderSpec(ApiModel):
    display_name: ShortText = Field("", description="What stands on the button; its name where nothing is given.")
    prefix: Prefix = Field(
        "", description="What stands before names (PREFIX.ada) and groups (PREFIX:staff); its name where not given."
    )
    disabled: bool = Field(False, description="Vouches for nobody; sessions by it end at once.")
    oidc: OidcSpec | None = Field(None, description="An OpenID Connect issuer.")
    ldap: LdapSpec | None = Field(None, description="A directory, as OpenLDAP or Active Directory.")


class IdentityProviderStatus(Status):
    phase: Literal["Pending", "Active", "Failing", "Disabled"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    read_at: str | None = Field(None, description="When what it says of itself was last read.")
    keys: int = Field(0, description="How many keys it lists.")
    algorithms: list[str] = Field(
        default_factory=list, description="The algorithms that are taken from it.", json_schema_extra=values_apart()
    )
    device_flow: bool = Field(False, description="Command lines can sign in by a device code.")
    single_logout: bool = Field(False, description="Signing out here signs out there.")
    last_error: str = Field("", description="Why it could not be read, in words; empty when all is well.")


class IdentityProvider(Resource[IdentityProviderSpec, IdentityProviderStatus]):
    KIND = "IdentityProvider"

    status: IdentityProviderStatus = Field(default_factory=IdentityProviderStatus)

    @property
    def prefix(self) -> str:
        """What stands before names and groups."""
        return self.spec.prefix or self.metadata.name


def validate(new: IdentityProvider, old: IdentityProvider | None) -> Sequence[Cause]:
    """A name that can stand before others, one way to vouch, an issuer that can be trusted with the question."""
    causes = [*label_problems(new.metadata.name, longest=NAME_LENGTH_MAX)] if old is None else []
    for path, word in (("metadata.name", new.metadata.name), ("spec.prefix", new.spec.prefix)):
        if word.startswith("system"):
            causes.append(Cause(path, "must not begin with system: those names are the platform's"))
    if (new.spec.oidc is None) == (new.spec.ldap is None):
        words = "is missing: say how the provider vouches" if new.spec.oidc is None else "stands beside spec.ldap"
        causes.append(Cause("spec.oidc", words))
    if new.spec.oidc is not None:
        causes += _oidc_problems(new.spec.oidc)
    if new.spec.ldap is not None:
        causes += _ldap_problems(new.spec.ldap)
    if old is not None:
        why = "people are known by it; make another provider"
        causes += unchangeable("spec.prefix", new=new.prefix, old=old.prefix, why=why)
        issuers = [spec.oidc.issuer if spec.oidc else "" for spec in (new.spec, old.spec)]
        causes += unchangeable("spec.oidc.issuer", new=issuers[0], old=issuers[1], why=why)
    return causes


def _oidc_problems(spec: OidcSpec) -> Iterator[Cause]:
    yield from issuer_problems(spec)
    yield from duplicates("spec.oidc.scopes", spec.scopes)
    yield from duplicates("spec.oidc.audiences", spec.audiences)
    yield from duplicates("spec.oidc.requiredClaims", [one.claim for one in spec.required_claims], field="claim")
    if "openid" not in spec.scopes:
        yield Cause("spec.oidc.scopes", "must hold openid: without it nobody says who signs in")
    if spec.ca_bundle and "-----BEGIN CERTIFICATE-----" not in spec.ca_bundle:
        yield Cause("spec.oidc.caBundle", "must be certificates in PEM")


def _ldap_problems(spec: LdapSpec) -> Iterator[Cause]:
    try:
        url = urlsplit(spec.url)
        fine = bool(url.hostname) and url.port != 0 and url.scheme in ("ldaps", "ldap")
    except ValueError:
        fine, url = False, urlsplit("")
    if not fine or url.username or url.path or url.query or url.fragment or not spec.url.isprintable():
        yield Cause("spec.ldap.url", "must read ldaps://HOST[:PORT] or ldap://HOST[:PORT]")
    for path, terms in (("userFilter", spec.user_filter), ("groupFilter", spec.group_filter)):
        if "={}" not in terms or terms.count("(") != terms.count(")"):
            yield Cause(f"spec.ldap.{path}", "must be a filter in which ={} stands, as (uid={})")
    if spec.ca_bundle and "-----BEGIN CERTIFICATE-----" not in spec.ca_bundle:
        yield Cause("spec.ldap.caBundle", "must be certificates in PEM")


def issuer_problems(spec: OidcSpec) -> Iterator[Cause]:
    """https, and http to loopback by explicit permission; nothing in it but host, port and path."""
    try:
        url = urlsplit(spec.issuer)
        host, port = url.hostname or "", url.port
    except ValueError:
        host, port, url = "", None, urlsplit("")
    plain = host and port != 0 and not (url.username or url.password or url.query or url.fragment)
    odd = not spec.issuer.isascii() or not spec.issuer.isprintable() or set(spec.issuer) & set(" \\?#@")
    if not plain or odd or url.scheme not in ("https", "http"):
        yield Cause("spec.oidc.issuer", "must read https://HOST[:PORT][/PATH]")
    elif url.scheme == "http" and not (spec.allow_loopback_http and spec.allow_private_address and _loopback(host)):
        yield Cause("spec.oidc.issuer", "must begin with https://")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reach_of(spec: OidcSpec) -> Reach:
    """How the issuer may be reached."""
    return Reach(
        issuer=spec.issuer,
        authorities=spec.ca_bundle,
        private=spec.allow_private_address,
        plain=spec.allow_loopback_http,
    )


def place_of(spec: LdapSpec) -> Place:
    """The directory, as the driver knows it."""
    said = {name: value for name, value in spec if name not in ("ca_bundle", "timeout_seconds", "create_users")}
    return Place(**said, authorities=spec.ca_bundle, seconds=spec.timeout_seconds)


def directory_issuer(uid: str) -> str:
    """Of whom the people of a directory are: of the provider by which they came, and no other."""
    return f"ldap:{uid}"


def older_first(providers: Iterable[IdentityProvider]) -> list[IdentityProvider]:
    """Those that count, in order: of two with one prefix or one issuer the older alone, disabled or not, so that
    nobody comes into another's names by the other's being away."""
    prefixes, issuers, found = set(), set(), []
    for one in sorted(providers, key=lambda one: (one.metadata.creation_timestamp or "", one.uid)):
        issuer = one.spec.oidc.issuer if one.spec.oidc else f"uid:{one.uid}"
        if one.prefix not in prefixes and issuer not in issuers:
            found.append(one)
        prefixes.add(one.prefix)
        issuers.add(issuer)
    return found


async def reconcile(ctx: Context, provider: IdentityProvider) -> Outcome:
    """Read what the issuer says of itself, and say how that went. A disabled one keeps no session."""
    if provider.spec.disabled:
        await end_sessions(ctx, provider)
        status = provider.status.model_copy(update={"phase": "Disabled"})
        return Done(status=status, ready=False, reason="Disabled", message="vouches for nobody")
    if (taken := await _taken(ctx, provider)) is not None:
        return taken
    if provider.spec.oidc is None:
        return Done(status=provider.status.model_copy(update={"phase": "Active"}))
    return await _look(ctx, provider, spec=provider.spec.oidc)


async def _taken(ctx: Context, provider: IdentityProvider) -> Wait | None:
    page = await ctx.objects.list(Scope(kind="IdentityProvider"))
    others = [IdentityProvider.load(stored.body) for stored in page.items]
    if any(one.uid == provider.uid for one in older_first(others)):
        return None
    same = any(one.prefix == provider.prefix and one.uid != provider.uid for one in others)
    message = f"an older provider has this {'prefix' if same else 'issuer'}, and counts alone"
    status = provider.status.model_copy(update={"phase": "Failing", "last_error": message})
    remedy = "Delete one of the two."
    if same:
        return Wait(reason="PrefixTaken", message=message, status=status, again=60.0, remedy=remedy)
    return Wait(reason="IssuerTaken", message=message, status=status, again=60.0, remedy=remedy)


async def _look(ctx: Context, provider: IdentityProvider, *, spec: OidcSpec) -> Outcome:
    reach = reach_of(spec)
    try:
        metadata = await ctx.issuers.metadata(reach)
        keys = await ctx.issuers.keys(reach, metadata)
        if not keys:
            raise failed("the issuer has no key")
    except DriverError as error:
        status = provider.status.model_copy(update={"phase": "Failing", "last_error": error.message})
        remedy = "Compare spec.oidc with what the issuer's own administrator says."
        return Wait(reason="IssuerFailed", message=error.message, status=status, again=60.0, remedy=remedy)
    told: dict[str, Any] = {
        "phase": "Active",
        "last_error": "",
        "keys": len(keys),
        "algorithms": list(metadata.algorithms),
        "device_flow": bool(metadata.device),
        "single_logout": bool(metadata.end_session),
    }
    if any(getattr(provider.status, name) != value for name, value in told.items()) or _old(ctx, provider):
        told["read_at"] = rfc3339(ctx.clock.now())
    return Done(status=provider.status.model_copy(update=told), again=READ_SECONDS)


def _old(ctx: Context, provider: IdentityProvider) -> bool:
    at_last = provider.status.read_at
    return at_last is None or epoch(at_last) <= ctx.clock.now() - READ_SECONDS / 2


async def finalize(ctx: Context, provider: IdentityProvider) -> Outcome:
    """Its sessions go with it; Users stay, and nobody vouches for them."""
    await end_sessions(ctx, provider)
    return Done()


async def end_sessions(ctx: Context, provider: IdentityProvider) -> None:
    """Delete every session that the provider vouched for."""
    page = await ctx.objects.list(Scope(kind="Session", labels={LABEL_PROVIDER: provider.metadata.name}))
    for stored in page.items:
        if Session.load(stored.body).spec.provider_uid == provider.uid:
            try:
                await ctx.objects.delete(stored.key, CONTROLLER, uid=stored.uid)
            except NotFound:
                continue


KIND: Kind[Context, IdentityProvider] = Kind(
    resource=IdentityProvider,
    plural="identityproviders",
    namespaced=False,
    short_names=("idp",),
    rights={"admin": ALL},
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Issuer", value=at("spec", "oidc", "issuer", default="")),
        Column(name="Keys", value=at("status", "keys", default=0), type="integer"),
        Column(name="Read", value=at("status", "readAt"), type="date", wide=True),
        Column(name="Error", value=at("status", "lastError"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    deadlines=DEADLINES,
)
