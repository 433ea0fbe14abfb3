"""`Held`: what claims hold of hosts, by the uid under which each is counted, and by host; and what thoughts go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bessemer.placement.facts import Hold


class Held:
    """Knows nothing of hosts but their names: they may come later. ``thoughts`` are those that go on: what each claim
    held that they touched, the innermost last."""

    def __init__(self) -> None:
        self.thoughts: list[dict[str, Hold | None]] = []
        self._by_uid: dict[str, Hold] = {}
        self._by_host: dict[str, set[str]] = {}

    def of(self, uid: str) -> Hold | None:
        """What is counted under a uid."""
        return self._by_uid.get(uid)

    def at(self, host: str) -> Mapping[str, Hold]:
        """What is counted at a host, by uid and in its order; the host may be away."""
        return {uid: self._by_uid[uid] for uid in sorted(self._by_host.get(host, ()))}

    def there(self, host: str) -> Iterable[Hold]:
        """The same, in no order."""
        return [self._by_uid[uid] for uid in self._by_host.get(host, ())]

    def put(self, uid: str, hold: Hold) -> None:
        """Count it; nothing is counted under the uid so far."""
        self._touch(uid, None)
        self._by_uid[uid] = hold
        self._by_host.setdefault(hold.host, set()).add(uid)

    def pop(self, uid: str) -> Hold | None:
        """Count it no more; what was counted."""
        hold = self._by_uid.pop(uid, None)
        if hold is None:
            return None
        self._touch(uid, hold)
        others = self._by_host[hold.host]
        others.discard(uid)
        if not others:
            del self._by_host[hold.host]
        return hold

    def copy(self) -> Held:
        """One that goes its own way, and is in no thought."""
        other = Held()
        other._by_uid = dict(self._by_uid)
        other._by_host = {host: set(uids) for host, uids in self._by_host.items()}
        return other

    def _touch(self, uid: str, before: Hold | None) -> None:
        # As it was when the thought began: what came in between is the thought's own.
        if self.thoughts:
            self.thoughts[-1].setdefault(uid, before)
