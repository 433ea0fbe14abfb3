"""The api beside its objects: signing in, a host's agent, a project's account, a workload's bytes, keys.

Each class is an area of `Client`. Every method raises errors of ``core.errors``; shapes are those of the routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any, Protocol

import orjson

from bessemer.client.answers import Begun, Joined, Me, Offer, SignedIn
from bessemer.client.paths import BASE, Paths, segment
from bessemer.client.transport import Ask, Socket, Transport
from bessemer.core.loads import LoadReport
from bessemer.core.resource import Key

SOURCE_HEADER = "X-Bessemer-Source"
"""The address for which the portal signs somebody in; it counts with the portal's certificate alone."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Batch(Protocol):
    """Usage as it is settled: a `core.values.UsageBatch`, or a gateway's own."""

    def dump(self) -> dict[str, Any]:
        """As the api reads it."""
        ...


class _Area:
    def __init__(self, transport: Transport, paths: Paths) -> None:
        self._transport = transport
        self._paths = paths

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] = _NOTHING,
    ) -> dict[str, Any]:
        data = None if body is None else orjson.dumps(body)
        answer = await self._transport.request(Ask(method=method, path=path, query=query, body=data))
        value: dict[str, Any] = orjson.loads(answer) if answer else {}
        return value


class Account(_Area):
    """Signing in and out, passwords, and the tokens that are shown once."""

    async def login(self, user: str, password: str, *, purpose: str = "cli") -> SignedIn:
        """``purpose`` is cli or portal. Raises Unauthenticated, TooMany."""
        body = {"user": user, "password": password, "purpose": purpose}
        return _signed_in(await self._ask("POST", "/login", body=body))

    async def follow_link(self, secret: str) -> SignedIn:
        """Exchange a sign-in link's secret, once, for a portal session. Raises Unauthenticated, TooMany."""
        return _signed_in(await self._ask("POST", "/login", body={"link": secret}))

    async def logout(self) -> str:
        """End the session whose token the transport carries; of somebody whom a provider vouched for, all of them.
        Answers where a browser ends the issuer's own, or ""."""
        return str((await self._ask("DELETE", "/login")).get("endSession", ""))

    async def providers(self) -> tuple[Offer, ...]:
        """By whom people may sign in besides a password."""
        answer = await self._ask("GET", "/login/providers")
        return tuple(_offer(one) for one in answer["providers"])

    async def begin(self, provider: str) -> Begun:
        """A sign-in by a provider. Raises Unauthenticated where there is no such one, Unavailable, TooMany."""
        answer = await self._ask("POST", f"/login/providers/{segment(provider)}/attempt", body={})
        return Begun(
            url=answer["url"],
            state=answer["state"],
            nonce=answer["nonce"],
            verifier=answer["verifier"],
            issuer=answer["issuer"],
            says_issuer=answer["saysIssuer"],
        )

    async def enter(self, provider: str, *, code: str, verifier: str, nonce: str) -> SignedIn:
        """A portal session for the code that a provider gave. Raises Unauthenticated, Unavailable, TooMany."""
        body = {"code": code, "verifier": verifier, "nonce": nonce}
        return _signed_in(await self._ask("POST", f"/login/providers/{segment(provider)}", body=body))

    async def client_secret(self, provider: str, secret: str) -> None:
        """Set a provider's client secret, or take it away with ""; administrators only."""
        path = self._paths.of(Key("IdentityProvider", "", provider), "clientsecret")
        await self._ask("POST", path, body={"secret": secret})

    async def source_secret(self, model: Key, secrets: Mapping[str, str]) -> None:
        """Set what the source of a Model or ProjectModel is shown (``token``; ``accessKey``, ``secretKey``), or take it
        away with none; administrators only, of a project's its own."""
        await self._ask("POST", self._paths.of(model, "token"), body=dict(secrets))

    async def whoami(self) -> Me:
        answer = await self._ask("GET", "/whoami")
        return Me(answer["name"], answer["admin"], answer["tenants"], tuple(answer["projects"]))

    async def set_password(self, user: str, password: str) -> None:
        """Oneself, or anybody for an administrator. Raises Invalid for a weak one."""
        await self._ask("POST", self._paths.of(Key("User", "", user), "password"), body={"password": password})

    async def sign_in_link(self, user: str) -> tuple[str, str]:
        """(url, secret) of a link good for one sign-in; administrators only."""
        answer = await self._ask("POST", self._paths.of(Key("User", "", user), "signinlink"), body={})
        return answer["url"], answer["secret"]

    async def key_token(self, namespace: str, name: str) -> str:
        """A new token for an ApiKey, shown once; the old one is worth nothing from now."""
        answer = await self._ask("POST", self._paths.of(Key("ApiKey", namespace, name), "token"), body={})
        return str(answer["token"])

    async def key_use(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """What bounds an ApiKey: ``{"scope", "meter", "title", "unit", "limit", "used", "held", "left", "until"}``."""
        return list((await self._ask("GET", self._paths.of(Key("ApiKey", namespace, name), "use")))["bounds"])

    async def credential_token(self, namespace: str, name: str, *, overlap: int | None = None) -> str:
        """A new secret for one's ApplicationCredential, shown once; the newest before it is good for ``overlap``
        seconds more (None: as the credential says)."""
        key, body = (
            Key("ApplicationCredential", namespace, name),
            {} if overlap is None else {"overlapSeconds": overlap},
        )
        answer = await self._ask("POST", self._paths.of(key, "token"), body=body)
        return str(answer["token"])

    async def host_token(self, host: str) -> str:
        """A one-time join token for a Host; administrators only."""
        answer = await self._ask("POST", self._paths.of(Key("Host", "", host), "token"), body={})
        return str(answer["token"])


class Agents(_Area):
    """What a host's agent does beyond objects."""

    async def join(self, host: str, csr: str, *, token: str = "", signature: str = "") -> Joined:
        """``csr`` is a PEM PKCS#10 request for a P-256 key, vouched for by the one-time ``token``, or for a renewal by
        ``signature``: ECDSA with SHA-256 over the PEM text by the registered key, DER in base64. Needs no certificate.
        Raises Unauthenticated, Forbidden, Invalid."""
        body: dict[str, Any] = {"csr": csr}
        if token:
            body["token"] = token
        if signature:
            body["signature"] = signature
        answer = await self._ask("POST", self._host(host, "join"), body=body)
        return Joined(answer["certificate"], answer["ca"])

    async def heartbeat(self, host: str) -> int:
        """Renew the host's lease; answers its length in seconds."""
        return int((await self._ask("POST", self._host(host, "heartbeat"), body={}))["leaseSeconds"])

    async def leave(self, host: str) -> None:
        """The last word of an agent that ends: unless it is back at once, its host is not heard of."""
        await self._ask("POST", self._host(host, "heartbeat"), body={"leaving": True})

    async def secrets(self, claim: Key) -> dict[str, str]:
        """The secrets of a Claim on this agent's host."""
        return dict((await self._ask("GET", self._paths.of(claim, "secrets")))["secrets"])

    async def content_size(self, digest: str) -> int:
        """How many bytes ``sha256:HEX`` has. Raises NotFound, also of an api that does not say."""
        return int((await self._ask("GET", f"/content/{digest}/size"))["sizeBytes"])

    async def endpoint_secret(self, endpoint: Key) -> tuple[str, str]:
        """What an Endpoint's service elsewhere is shown, "" where nothing is, and at which ``https://host:port/path``."""
        said = await self._ask("GET", self._paths.of(endpoint, "secret"))
        return said["secret"], said.get("at", "") + said.get("path", "")

    @asynccontextmanager
    async def content(self, digest: str, *, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of ``sha256:HEX`` from ``offset`` on, in parts. The reader verifies the digest."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        ask = Ask(method="GET", path=f"/content/{digest}", headers=headers)
        async with self._transport.stream(ask, silence=30.0) as parts:
            yield parts

    def stream(self, host: str) -> AbstractAsyncContextManager[Socket]:
        """The socket over which the server asks for logs and consoles: messages of ``core.frames``, dialled."""
        return self._transport.socket(self._host(host, "stream"), {})

    async def usage(self, batch: Batch) -> int:
        """A gateway: settle a batch; answers the highest sequence stored. Raises Conflict for a gap."""
        return int((await self._ask("POST", f"{BASE}/usage", body=batch.dump()))["sequence"])

    async def loads(self, report: LoadReport, *, last: bool = False) -> None:
        """A gateway: what is asked of endpoints that scale; the ``last`` that it says."""
        await self._ask("POST", f"{BASE}/loads", body=report.dump(), query={"last": "true"} if last else {})

    async def share(
        self, project: str, *, meter: str, amount: int, money: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A gateway: a share of the project's present window: ``{"amount", "seconds", "left", "words"}``; ``words`` are
        a refusal. ``money`` is its statement of that: ``{"holder", "micro", "after"}``; it is answered by ``"money"``
        where that is bounded: ``{"prices", "number", "stands", "left"}``."""
        body = {"meter": meter, "amount": amount} | ({"money": money} if money is not None else {})
        return await self._ask("POST", self._paths.of(Key("Project", "", project), "shares"), body=body)

    async def lend(self, project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        """A gateway: what it wants of the bounds of whoever asks there, all or nothing: as `core.bounds.Ask`, answered
        as `core.bounds.Answer`, with ``words`` for what lacks."""
        return await self._ask("POST", self._paths.of(Key("Project", "", project), "shares"), body={"bounds": bounds})

    async def bearer(self, token: str, *, project: str) -> dict[str, Any]:
        """A gateway: who shows it a token of an issuer, and in which projects they may ask: ``{"user", "projects"}``;
        "" is nobody, and with ``project`` only that one is looked at."""
        return await self._ask("POST", f"{BASE}/bearers", body={"token": token, "project": project})

    async def held(self, holder: str) -> list[str]:
        """A gateway: the projects of whose money or bounds it holds some, by what was said in its name."""
        return list((await self._ask("GET", f"{BASE}/usage", query={"holder": holder}))["projects"])

    def _host(self, host: str, sub: str) -> str:
        return self._paths.of(Key("Host", "", host), sub)


class Projects(_Area):
    """A project's money and meters. Times are seconds since the epoch, UTC."""

    async def invoice(self, project: str, since: int, until: int) -> dict[str, Any]:
        """The invoice of [since, until): lines with their formula."""
        return await self._ask("GET", self._path(project, "invoice"), query=_window(since, until))

    async def ledger(self, project: str, since: int, until: int) -> dict[str, Any]:
        """``{"rows", "pricePlan"}``: all that a second implementation needs."""
        return await self._ask("GET", self._path(project, "ledger"), query=_window(since, until))

    async def usage(self, project: str, *, since: int, until: int, **asked: str) -> dict[str, Any]:
        """How the project's endpoints answered in [since, until): ``{"rows", "total", "step", "currency", "left"}``.
        ``asked`` are ``by`` (key, endpoint, member, model), ``step``, ``endpoint``, ``key``, ``most``."""
        said = {name: value for name, value in asked.items() if value}
        return await self._ask("GET", self._path(project, "usage"), query={**_window(since, until), **said})

    async def reconcile(self, project: str) -> list[dict[str, Any]]:
        """Of each replica, what was billed and counted: ``{"endpoint", "replica", "state", "difference", …}``."""
        return list((await self._ask("GET", self._path(project, "reconcile")))["replicas"])

    async def use(self, project: str) -> list[dict[str, Any]]:
        """Each meter of the project and of its tenant: ``{"scope", "meter", "title", "unit", "used", "limit"}``."""
        return list((await self._ask("GET", self._path(project, "use")))["meters"])

    async def tenant_use(self, tenant: str) -> list[dict[str, Any]]:
        """Each meter of the tenant."""
        return list((await self._ask("GET", self._paths.of(Key("Tenant", "", tenant), "use")))["meters"])

    async def spools(self) -> list[dict[str, Any]]:
        """What gateways hold, for administrators: ``{"holder", "project", "heardAt", "parts"}``."""
        return list((await self._ask("GET", "/spools"))["holds"])

    async def forget_spool(self, holder: str) -> list[dict[str, Any]]:
        """A gateway's spool is lost for good; what it held. Administrators only. Raises NotFound, Conflict."""
        return list((await self._ask("POST", "/spools/forget", body={"holder": holder}))["holds"])

    def _path(self, project: str, sub: str) -> str:
        return self._paths.of(Key("Project", "", project), sub)


class Fleet(_Area):
    """The fleet as who plans sees it."""

    async def plan(
        self, project: str, body: Mapping[str, Any], *, after: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """Where an object would go, were those of ``after`` placed before it: an `Outline`. Raises what a create of it
        would."""
        path = f"{BASE}/namespaces/{segment(project)}/placementreviews"
        spec = {"object": body, **({"after": list(after)} if after else {})}
        return dict((await self._ask("POST", path, body={"spec": spec}))["status"])

    async def figures(self) -> dict[str, Any]:
        """What there is, what of it is of no use, and what that costs; for who may read hosts."""
        return await self._ask("GET", "/fleet")


class Workloads(_Area):
    """A workload's bytes, relayed from the host that runs it."""

    async def endpoint_secret(self, endpoint: Key, secret: str) -> None:
        """Set what an Endpoint's service elsewhere is shown; "" takes it away."""
        body = {"secret": secret} if secret else {}
        await self._ask("POST", self._paths.of(endpoint, "secret"), body=body)

    async def logging_keys(self, endpoint: Key, keys: Mapping[str, str]) -> None:
        """Set the keys of the bucket where what an Endpoint is asked and answers is logged; none take them away."""
        await self._ask("POST", self._paths.of(endpoint, "secret"), body={"logging": dict(keys)})

    async def kept_keys(self, endpoint: Key) -> tuple[dict[str, str], str]:
        """A gateway: those keys, nothing where none are set, and for which bucket they are."""
        said = (await self._ask("GET", self._paths.of(endpoint, "secret"))).get("logging") or {}
        return dict(said.get("keys", {})), said.get("at", "")

    @asynccontextmanager
    async def log(self, key: Key, *, follow: bool = False, replica: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """The log of an Instance or a replica of an Endpoint. Raises NotFound, Unavailable while its host is silent."""
        query = {"follow": "true" if follow else "false", "replica": str(replica)}
        ask = Ask(method="GET", path=self._paths.of(key, "log"), query=query)
        async with self._transport.stream(ask) as parts:
            yield parts

    def console(self, key: Key) -> AbstractAsyncContextManager[Socket]:
        """The serial console of an Instance: bytes both ways."""
        return self._transport.socket(self._paths.of(key, "console"), {})


class Audit(_Area):
    """The audit trail, as far as the asker may read it."""

    async def find(self, query: Mapping[str, str]) -> tuple[list[dict[str, Any]], str]:
        """Rows, the newest first, and what to give as ``continue`` for the next ("" at the end): a page may be empty
        before the end. ``query`` is of the route: who, verb, kind, namespace, name, tenant, allowed, since, until,
        limit. Raises Forbidden."""
        answer = await self._ask("GET", "/audit", query=query)
        return list(answer["rows"]), str(answer["continue"])

    @asynccontextmanager
    async def export(self, *, after: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """The trail's file (`core.trail`) in parts. Raises Forbidden."""
        ask = Ask(method="GET", path="/audit/export", query={"after": str(after)})
        async with self._transport.stream(ask) as parts:
            yield parts

    async def trim(self, through: int, digest: str) -> int:
        """Drop the rows up to ``through``, once they are archived; how many went. Raises Conflict, Forbidden."""
        return int((await self._ask("POST", "/audit/trim", body={"through": through, "digest": digest}))["dropped"])


class SealedValues(_Area):
    """Under which keys sealed values are; administrators only. ``{"current", "dataKeys", "values", "left"}``."""

    async def keys(self) -> dict[str, Any]:
        return await self._ask("GET", "/sealed")

    async def rotate(self, *, values: bool = False) -> dict[str, Any]:
        """Follow the current key now. Raises Unavailable where some of it waits."""
        return await self._ask("POST", "/sealed/rotate", body={"values": values})


def _signed_in(answer: Mapping[str, Any]) -> SignedIn:
    return SignedIn(answer["token"], answer["user"], answer["expiresAt"])


def _offer(one: Mapping[str, Any]) -> Offer:
    return Offer(
        name=one["name"],
        title=one["displayName"],
        issuer=one["issuer"],
        client_id=one["clientId"],
        scopes=tuple(one["scopes"]),
        authorities=one["caBundle"],
        private=one["allowPrivateAddress"],
        plain=one["allowLoopbackHttp"],
    )


def _window(since: int, until: int) -> dict[str, str]:
    return {"from": str(since), "to": str(until)}
