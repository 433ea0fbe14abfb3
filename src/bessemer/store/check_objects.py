"""Checks of what objects are: their bodies, the tables that repeat what bodies say, and their history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select

from bessemer.core.resource import Key, tenant_of
from bessemer.store.documents import Document, deleting, finalizers, host_of, labels_of
from bessemer.store.kinds import CLAIM, EVENT, PROJECT, TENANT
from bessemer.store.schema import cascades, changes, counters, dependents, labels, objects
from bessemer.store.snapshot import Snapshot
from bessemer.store.tally import OBJECTS, Known, Survey, Tally, differences, digest, parsed
from bessemer.store.waiting import blocked_by, others

_UIDS = select(objects.c.uid, func.count()).group_by(objects.c.uid).having(func.count() > 1)
_NAMES = (
    select(objects.c.kind, objects.c.namespace, objects.c.name, func.count())
    .group_by(objects.c.kind, objects.c.namespace, objects.c.name)
    .having(func.count() > 1)
)
_LABELS = select(labels.c.kind, labels.c.label, labels.c.value, labels.c.namespace, labels.c.name)
_OWNED = select(dependents.c.owner, dependents.c.uid)
_BLOCKING = select(dependents.c.owner, dependents.c.uid, dependents.c.blocks)
_CASCADES = select(cascades.c.uid)
_COUNTERS = select(counters.c.name, counters.c.value)
_CHANGES = select(
    changes.c.revision,
    changes.c.type,
    changes.c.kind,
    changes.c.namespace,
    changes.c.name,
    changes.c.uid,
    changes.c.body,
).order_by(changes.c.revision)
_NEEDED = ("revision", "floor", "audit_base")
_DELETED = 2


def bodies(snapshot: Snapshot, survey: Survey) -> Tally:
    """Read every body, once; what they say is in ``survey`` from then on."""
    tally = Tally("bodies", "a body says the kind, name, project, uid, revision, labels and host of its row")
    for row in snapshot.rows(OBJECTS):
        key, body = Key(*row[:3]), bytes(row[8])
        tally.rows += 1
        document = parsed(body)
        if document is None:
            tally.fault(f"{key}: the body is no object in JSON")
            continue
        if wrong := _against(row, document):
            tally.fault(f"{key}: body and row differ in {', '.join(wrong)}")
        if row[6] > snapshot.revision:
            tally.fault(f"{key}: revision {row[6]} was never given, the last is {snapshot.revision}")
        owners = tuple(_owners(document))
        doomed = deleting(document)
        waits = doomed and others(finalizers(document)) != finalizers(document)
        known = Known(key, row[3], row[6], digest(body), doomed, owners, frozenset(blocked_by(document)), waits)
        try:
            survey.note(known, document)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            tally.fault(f"{key}: the body has not the shape of its kind ({error})")
    return tally


def _against(row: tuple[Any, ...], document: Document) -> list[str]:
    """In what a body is not its row's."""
    metadata = document["metadata"]
    said = {
        "kind": document.get("kind"),
        "namespace": metadata.get("namespace", ""),
        "name": metadata.get("name"),
        "uid": metadata.get("uid"),
        "host": host_of({"spec": {}, **document}),
        "generation": metadata.get("generation", 1),
        "revision": metadata.get("resourceVersion"),
        "labels": labels_of(document),
    }
    kept = (*row[:6], str(row[6]), row[7])
    return [name for (name, value), column in zip(said.items(), kept, strict=True) if value != column]


def _owners(document: Document) -> Iterator[tuple[str, str]]:
    for owner in document["metadata"].get("ownerReferences") or ():
        yield str(owner.get("uid")), str(owner.get("name"))


def names(snapshot: Snapshot, survey: Survey) -> Tally:
    """No uid and no name twice."""
    tally = Tally("names", "no uid is two objects', and no name of a kind within a project", rows=len(survey.objects))
    for uid, count in snapshot.all(_UIDS):
        tally.fault(f"uid {uid}: {count} objects")
    for kind, namespace, name, count in snapshot.all(_NAMES):
        tally.fault(f"{Key(kind, namespace, name)}: {count} times")
    return tally


def indexed_labels(snapshot: Snapshot, survey: Survey) -> Tally:
    """The table of labels."""
    tally = Tally("labels", "what selectors look at is what bodies say")
    for kind, label, value, namespace, name in differences(survey.labels, snapshot.rows(_LABELS), tally=tally):
        tally.fault(f"{Key(kind, namespace, name)}: label {label}={value} is not found by selectors")
    return tally


def indexed_owners(snapshot: Snapshot, survey: Survey) -> Tally:
    """The table of dependents, and what owners are."""
    tally = Tally("owners", "who goes with whom is what bodies say, and an owner is of the same project or of none")
    said = {(owner, known.uid) for known in survey.objects.values() for owner, _ in known.owners}
    left = {pair for pair in differences(said | survey.about, snapshot.rows(_OWNED), tally=tally) if pair in said}
    for owner, uid in left:
        if owner in survey.by_uid:  # of one that is gone nothing follows any more
            tally.fault(f"{survey.by_uid[uid].key}: would not go with its owner {survey.by_uid[owner].key}")
    for owner, uid in said:
        above, below = survey.by_uid.get(owner), survey.by_uid[uid]
        if above is not None and above.key.namespace not in ("", below.key.namespace):
            tally.fault(f"{below.key}: its owner {above.key} is in another project")
    return tally


def blocking(snapshot: Snapshot, survey: Survey) -> Tally:
    """Who waits for whom, and that somebody sees to it."""
    tally = Tally("blocking", "an owner waits for whom bodies say, and what waits for its dependents is seen to")
    for owner, uid, blocks in snapshot.rows(_BLOCKING):
        known = survey.by_uid.get(uid)
        if known is not None and owner in survey.by_uid and blocks in (0, 1):  # else it is not known yet
            words = f"{known.key}: {survey.by_uid[owner].key} would{'' if blocks else ' not'} wait for it"
            tally.require((owner in known.blocks) == bool(blocks), words)
    seen = {uid for (uid,) in snapshot.rows(_CASCADES)}
    for known in survey.objects.values():
        if known.waits:
            tally.require(known.uid in seen, f"{known.key}: would wait for its dependents for ever")
    return tally


def owned(snapshot: Snapshot, survey: Survey) -> Tally:
    """Nobody outlives all of its owners."""
    tally = Tally("owned", "what has lost its last owner is gone, or on its way")
    for known in survey.objects.values():
        if known.owners and known.key.kind != EVENT:
            good = known.deleting or any(uid in survey.by_uid for uid, _ in known.owners)
            tally.require(good, f"{known.key}: its owner {known.owners[0][1]} is gone")
    return tally


def projects(snapshot: Snapshot, survey: Survey) -> Tally:
    """Nothing belongs to nobody."""
    tally = Tally("projects", "what is in a project has it, a project its tenant, and a Claim the tenant that pays")
    for key, known in survey.objects.items():
        if key.kind == PROJECT and tenant_of(key.name):
            tally.require(survey.living(TENANT, tenant_of(key.name)), f"{key}: its tenant is not there")
        elif key.namespace and key.kind != EVENT and tenant_of(key.namespace):
            tally.require(survey.living(PROJECT, key.namespace), f"{key}: its project is not there")
        if key.kind == CLAIM and (claim := survey.claims.get(known.uid)) is not None:
            good = claim[1].tenant == tenant_of(key.namespace)
            tally.require(good, f"{key}: is paid by {claim[1].tenant}, and in a project of another tenant")
    return tally


def history(snapshot: Snapshot, survey: Survey) -> Tally:
    """The counters, and no gap in the log."""
    tally = Tally("history", "the log of changes is dense from where it begins up to the last revision")
    found = {str(name): int(value) for name, value in snapshot.all(_COUNTERS)}
    for name in _NEEDED:
        tally.require(found.get(name, -1) >= 0, f"counter {name}: is not there")
    last = found.get("floor", 0)
    for (revision,) in snapshot.rows(select(changes.c.revision).order_by(changes.c.revision)):
        missing = f"revision {last + 1} is" if revision == last + 2 else f"revisions {last + 1} to {revision - 1} are"
        words = f"{missing} missing" if revision > last else f"revision {revision} is before history begins"
        tally.require(revision == last + 1, words)
        last = max(last, revision)
    if last != snapshot.revision:
        tally.fault(f"the last change has revision {last}, the counter says {snapshot.revision}")
    return tally


def logged(snapshot: Snapshot, survey: Survey) -> Tally:
    """What watches are told is what is there."""
    tally = Tally("changes", "each change's body has its revision, and the last one of an object is what is served")
    last: dict[Key, tuple[int, int, bytes]] = {}
    floor = dict(snapshot.all(_COUNTERS)).get("floor", 0)
    for revision, kind, *place, uid, raw in snapshot.rows(_CHANGES):
        key, body = Key(*place), bytes(raw)
        document = parsed(body) or {"metadata": {}}
        metadata = document["metadata"]
        said = (document.get("kind"), metadata.get("namespace", ""), metadata.get("name"), metadata.get("uid"))
        good = said == (*key, uid) and metadata.get("resourceVersion") == str(revision)
        tally.require(good, f"revision {revision}: its body is not of {key}, uid {uid}, at this revision")
        last[key] = (revision, kind, digest(body))
    for key, (revision, kind, body) in last.items():
        known = survey.objects.get(key)
        if kind == _DELETED and known is not None:
            tally.fault(f"{key}: was deleted at revision {revision}, and is there")
        elif kind != _DELETED and (known is None or (known.revision, known.digest) != (revision, body)):
            words = "is not there" if known is None else f"is at revision {known.revision}, or has another body"
            tally.fault(f"{key}: was last written at revision {revision}, and {words}")
    for key, known in survey.objects.items():
        if known.revision > floor and key not in last:
            tally.fault(f"{key}: no change tells of its revision {known.revision}")
    return tally
