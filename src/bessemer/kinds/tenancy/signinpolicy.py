"""SignInPolicy: whether people sign in with passwords of our own. There is one, and it is named ``sign-in``.

Invariants: where there is none, they do, for a first start needs somebody who may come in. Who switches them off is an
administrator who came in another way that very time, so that there is such a way; the api holds that. The certificate
of the state directory opens in any case. It is no list of ways to sign in: see IdentityProvider.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, ApiModel, Column, Kind, Resource, Status
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at

NAME = "sign-in"


class SignInPolicySpec(ApiModel):
    local_users: bool = Field(
        True, description="Passwords and sign-in links of our own count; without, sessions by them end at once."
    )


class SignInPolicyStatus(Status):
    phase: str = Field("", description="It does nothing by itself, and has none.")


class SignInPolicy(Resource[SignInPolicySpec, SignInPolicyStatus]):
    KIND = "SignInPolicy"

    spec: SignInPolicySpec = Field(default_factory=SignInPolicySpec)
    status: SignInPolicyStatus = Field(default_factory=SignInPolicyStatus)


def validate(new: SignInPolicy, old: SignInPolicy | None) -> Sequence[Cause]:
    """There is one."""
    return [] if new.metadata.name == NAME else [Cause("metadata.name", f"must be {NAME}: there is one policy")]


KIND: Kind[Context, SignInPolicy] = Kind(
    resource=SignInPolicy,
    plural="signinpolicies",
    namespaced=False,
    rights={"admin": ALL, "auditor": READ},
    columns=(Column(name="Local users", value=at("spec", "localUsers", default=True), type="boolean"),),
    validate=validate,
)
