"""Reviews, as Kubernetes has them: may I, what may I, who am I, whose is this token; and may they, for administrators.

Whoever is signed in may ask about themselves; the answers are those that the asker's requests would get (`offers`), so
that a question about another tenant's project is answered as one about a project that is not there. A TokenReview tells
an administrator whose a token is, and everybody else whether it is their own: who asks about somebody else's token is
answered as about one that is worth nothing, and both leave a row in the trail, since a token that was found or guessed
could be tried here; how often somebody may be wrong is bounded. Nothing is kept, and no token is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api.account import UNKNOWN
from bessemer.api.authn import AGENT_PREFIX
from bessemer.api.context import MASTERS, Credentials, Identity
from bessemer.api.credentials import within_reach
from bessemer.api.errors import invalid
from bessemer.api.media import wanted
from bessemer.api.offers import Authorise, Offers
from bessemer.api.query import WriteOptions, write_options
from bessemer.api.questions import (
    ACCESS,
    LOCAL_ACCESS,
    SELF,
    SELF_ACCESS,
    SELF_RULES,
    TOKEN,
    Act,
    Review,
    Visit,
    identify,
    question,
    text,
    texts,
    unknown,
)
from bessemer.api.refusals import Refusal
from bessemer.api.state import Call, answer
from bessemer.api.warnings import warning
from bessemer.core.errors import Cause, Malformed, Unauthenticated
from bessemer.core.resource import GROUP, Key

if TYPE_CHECKING:
    from bessemer.api.routes import Rule

AUDIENCE = GROUP
"""For whom our tokens are."""

AUTHENTICATED = "system:authenticated"
TENANTS = f"{GROUP}/tenants"
CREDENTIAL = f"{GROUP}/credential"
TOKEN_MAX = 4096
_NOT_ONES_OWN = "the token is worth nothing here, or is not yours"


class Reviews:
    """The handlers of the reviews' routes. ``table`` gives all routes and what decides their requests; it is called at
    each question, since the routes are not whole before these handlers stand among them."""

    def __init__(self, table: Callable[[], tuple[Sequence[Rule], Authorise]]) -> None:
        self._table = table

    async def own_access(self, call: Call) -> Response:
        """POST selfsubjectaccessreviews: may I?"""
        said = await said_in(call, SELF_ACCESS)
        return told_of(call, said, status=await self._allowed(call, question(SELF_ACCESS, said.spec), who=call.who))

    async def access(self, call: Call) -> Response:
        """POST subjectaccessreviews: may they?"""
        said = await said_in(call, ACCESS)
        return told_of(
            call, said, status=await self._judged(call, question(ACCESS, said.spec), review=ACCESS, spec=said.spec)
        )

    async def local_access(self, call: Call) -> Response:
        """POST localsubjectaccessreviews: may they, in this project?"""
        said = await said_in(call, LOCAL_ACCESS)
        asked, namespace = question(LOCAL_ACCESS, said.spec), call.parameter("namespace")
        if isinstance(asked, Visit):
            words = "Forbidden: a path is in no project"
            raise invalid(LOCAL_ACCESS.subject, [Cause("spec.nonResourceAttributes", words, "FieldValueForbidden")])
        if (asked.namespace or namespace) != namespace:
            words = "Invalid value: must match the namespace on the URL"
            raise invalid(LOCAL_ACCESS.subject, [Cause("spec.resourceAttributes.namespace", words)])
        here = replace(asked, namespace=namespace)
        return told_of(call, said, status=await self._judged(call, here, review=LOCAL_ACCESS, spec=said.spec))

    async def own_rules(self, call: Call) -> Response:
        """POST selfsubjectrulesreviews: all that I may, in a project and in none."""
        said = await said_in(call, SELF_RULES)
        namespace = text(SELF_RULES, said.spec, field="namespace", at="spec")
        if not namespace:
            raise Malformed("no namespace on request")
        return told_of(call, said, status=await self._offers(call).rules(call.who, namespace))

    async def oneself(self, call: Call) -> Response:
        """POST selfsubjectreviews: who am I?"""
        said = await said_in(call, SELF)
        return told_of(call, said, status={"userInfo": await _user_info(call, call.who)})

    async def token(self, call: Call) -> Response:
        """POST tokenreviews: whose is this token?"""
        said = await said_in(call, TOKEN)
        token = text(TOKEN, said.spec, field="token", at="spec", longest=TOKEN_MAX)
        audiences = texts(TOKEN, said.spec, field="audiences", at="spec")
        said.body["spec"] = {"audiences": audiences} if audiences else {}
        if audiences and AUDIENCE not in audiences:
            words = f'the token is for "{AUDIENCE}", and not for the audiences that were named'
            return told_of(call, said, status={"authenticated": False, "error": words})
        holder = await _paced(call, token)
        if holder is None:
            refused = Refusal(call.writer, "create", Key(TOKEN.kind, "", UNKNOWN), _NOT_ONES_OWN)
            await call.state.refusals.known(refused)
            return told_of(call, said, status={"authenticated": False, "error": _NOT_ONES_OWN})
        status = {"authenticated": True, "user": await _user_info(call, holder), "audiences": [AUDIENCE]}
        return told_of(call, said, status=status)

    def _offers(self, call: Call) -> Offers:
        rules, authorise = self._table()
        return Offers(call, rules, authorise=authorise)

    async def _allowed(self, call: Call, asked: Act | Visit, *, who: Identity) -> dict[str, Any]:
        refusal = await self._offers(call).refusal(who, asked)
        return {"allowed": False, "reason": refusal} if refusal else {"allowed": True}

    async def _judged(self, call: Call, asked: Act | Visit, *, review: Review, spec: dict[str, Any]) -> dict[str, Any]:
        """About somebody else, as the spec names them."""
        user, groups = text(review, spec, field="user", at="spec"), texts(review, spec, field="groups", at="spec")
        if not user and not groups:
            words = "Invalid value: at least one of user or group must be specified"
            raise invalid(review.subject, [Cause("spec.user", words)])
        try:
            who = await _named(call, user, groups=groups, credential=_credential(review, spec))
        except Unauthenticated as error:
            return {"allowed": False, "reason": error.message}
        return await self._allowed(call, asked, who=who)


@dataclass(frozen=True, slots=True)
class Said:
    """A question as it was put."""

    body: dict[str, Any]
    spec: dict[str, Any]
    options: WriteOptions


async def said_in(call: Call, review: Review) -> Said:
    """What is asked, of somebody who is still who they were."""
    wanted(call.request.headers.get("accept", ""))
    options = write_options(call.query, "CreateOptions")
    body = await bodies.read_object(call.request, call.state.context.limits, twice=options.twice)
    await call.still()
    spec = identify(review, body)
    options.unknown(unknown(review, body))
    return Said(body, spec, options)


def told_of(call: Call, asked: Said, *, status: dict[str, Any]) -> Response:
    """The review with its answer."""
    body = asked.body
    head = {"kind": body["kind"], "apiVersion": body["apiVersion"], "metadata": {"creationTimestamp": None}}
    told = {**head, **({"spec": body["spec"]} if body.get("spec") else {}), "status": status}
    headers = {
        "Cache-Control": "no-store",
        **({"Warning": words} if (words := warning(asked.options.warnings)) else {}),
    }
    if wanted(call.request.headers.get("accept", "")).yaml:
        return Response(yaml.safe_dump(told), 201, headers=headers, media_type="application/yaml")
    return answer(told, 201, headers=headers)


async def _paced(call: Call, token: str) -> Identity | None:
    """`_holder`, and how often somebody may be wrong: an administrator, who asks for others, as often as an address may
    show what is worth nothing; everybody else, who can only ask about what is theirs, as often as one may sign in.
    Raises TooMany."""
    state, asker = call.state, f"{call.who.kind}:{call.who.name}"
    reviews = state.access.administers(call.who)
    if reviews:
        state.reviewed.admit(asker, token)
    else:
        state.sign_ins.may_prove(call.credentials.source, f"{TOKEN.kind} {asker}")
    holder = await _holder(call, token)
    if reviews:
        (state.reviewed.worthless if holder is None else state.reviewed.good)(asker, token)
    elif holder is None:
        state.sign_ins.disproved(call.credentials.source, f"{TOKEN.kind} {asker}")
    return holder


async def _holder(call: Call, token: str) -> Identity | None:
    """Who is signed in by a token, if the asker may know; None is nobody, too."""
    bearer = Credentials(authorization=f"Bearer {token}", source=call.credentials.source)
    try:
        holder = await call.state.authenticator.authenticate(bearer)
    except Unauthenticated:
        return None
    own = holder is not None and (holder.kind, holder.name) == (call.who.kind, call.who.name)
    return holder if own or call.state.access.administers(call.who) else None


def _credential(review: Review, spec: dict[str, Any]) -> str:
    """The credential of which a TokenReview told, "" where there was none. Raises Invalid."""
    said = spec.get("extra")
    told = texts(review, said, field=CREDENTIAL, at="spec.extra") if isinstance(said, dict) else ()
    if len(told) > 1:
        words = "Invalid value: one credential asks at a time"
        raise invalid(review.subject, [Cause(f"spec.extra.{CREDENTIAL}", words)])
    return told[0] if told else ""


async def _named(call: Call, user: str, *, groups: Sequence[str], credential: str) -> Identity:
    """Who would ask under that name, perhaps by a credential, which is in no group. Raises Unauthenticated for who may
    not sign in."""
    if credential:
        return await call.state.local.programs.named(credential, user)
    if MASTERS in groups:
        return Identity("user", user, True, (MASTERS,))
    if user.startswith(AGENT_PREFIX):
        return Identity("agent", user.removeprefix(AGENT_PREFIX))
    if user == "system:gateway":
        return Identity("gateway", "gateway")
    if user == "system:portal":
        return Identity("portal", "portal")
    admin = bool(user) and bool((await call.state.local.user(user))["spec"].get("admin"))
    return Identity("user", user, admin, tuple(groups))


async def _user_info(call: Call, who: Identity) -> dict[str, Any]:
    """Kubernetes' UserInfo: the name as a certificate has it, the groups, and the roles in tenants."""
    prefix = {"user": "", "agent": AGENT_PREFIX}.get(who.kind, "system:")
    info: dict[str, Any] = {"username": f"{prefix}{who.name}", "groups": [*who.groups, AUTHENTICATED]}
    if who.kind != "user":
        return info
    if who.session:
        info["uid"] = (await call.state.local.user(who.name))["metadata"]["uid"]
    tenants, _ = within_reach(call, who)
    extra = {TENANTS: [f"{tenant}={role}" for tenant, role in tenants.items()]} if tenants else {}
    if who.credential:
        extra[CREDENTIAL] = [who.credential]
    if extra:
        info["extra"] = extra
    return info
