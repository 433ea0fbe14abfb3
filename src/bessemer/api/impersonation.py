"""``Impersonate-*``: to act as somebody else is not offered, and is refused to everybody, administrators too.

Kubernetes lets those impersonate who may. To pass such a header over would be the worst answer: what was meant with
another's few rights would be done with all of the asker's. Who acts for somebody has a credential of theirs.
"""

from __future__ import annotations

from bessemer.api.errors import Subject
from bessemer.api.names import plain
from bessemer.api.state import Call
from bessemer.core.errors import Forbidden

_PREFIX = b"impersonate-"
_PLURALS = {b"user": "users", b"group": "groups", b"uid": "uids"}
"""What each header names, as Kubernetes calls it; any other is of ``userextras``."""


class Impersonating(Forbidden):
    """Somebody known asks to be taken for another."""

    def __init__(self, who: str, subject: Subject) -> None:
        super().__init__(
            f'{subject.plural} "{subject.name}" is forbidden: User "{who}" cannot impersonate resource '
            f'"{subject.plural}" in API group "" at the cluster scope: impersonation is not offered: use an '
            "application credential"
        )
        self.subject = subject


def require_oneself(call: Call) -> None:
    """Whether who asks speaks for themselves; a stranger is told elsewhere to sign in. Raises Impersonating."""
    if call.identity is None:
        return
    for name, value in call.connection.scope["headers"]:
        if name.startswith(_PREFIX):
            plural = _PLURALS.get(name.removeprefix(_PREFIX), "userextras")
            raise Impersonating(call.identity.name, Subject(plural=plural, name=plain(value.decode("latin-1"))))
