"""A bucket's own rules of expiry, as S3 writes them: read, ours put among them, written again. Pure.

Rules of others are copied element by element. Ours is known by its name, which follows from the prefix that it is of.
"""

from __future__ import annotations

import hashlib
from xml.etree import ElementTree

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.s3 import parsed

Rules = ElementTree.Element

SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_NONE_YET = b"NoSuchLifecycleConfiguration"


def read(status: int, body: bytes) -> Rules | None:
    """The rules that a bucket has, by its answer; None where it does not say."""
    if status == 404 and _NONE_YET in body:
        return ElementTree.Element(f"{{{SPACE}}}LifecycleConfiguration")
    if status != 200:
        return None
    try:
        found = parsed(body)
    except DriverError:
        return None
    return found if _name(found) == "LifecycleConfiguration" else None


def stands(rules: Rules, prefix: str, *, days: int) -> bool:
    """Whether one of them lets go of what begins so after so many days."""
    return any(
        _text(rule, "Status") == "Enabled" and _prefix(rule) == prefix and _days(rule) == str(days)
        for rule in rules
        if _name(rule) == "Rule"
    )


def written(rules: Rules, prefix: str, *, days: int) -> bytes | None:
    """The rules with ours; None where they cannot be written as they are."""
    space = rules.tag.rpartition("}")[0].removeprefix("{")
    own, around = _id(prefix), f"{{{space}}}" if space else ""
    whole = ElementTree.Element(rules.tag)
    for rule in rules:
        if _text(rule, "ID") != own:
            whole.append(rule)
    rule = ElementTree.SubElement(whole, f"{around}Rule")
    for name, text in (("ID", own), ("Status", "Enabled")):
        ElementTree.SubElement(rule, around + name).text = text
    ElementTree.SubElement(ElementTree.SubElement(rule, f"{around}Filter"), f"{around}Prefix").text = prefix
    ElementTree.SubElement(ElementTree.SubElement(rule, f"{around}Expiration"), f"{around}Days").text = str(days)
    try:
        text = ElementTree.tostring(whole, encoding="unicode", default_namespace=space or None)
    except (ValueError, RecursionError):  # names of several spaces, or nested too deep
        return None
    return text.encode()


def _id(prefix: str) -> str:
    return f"bessemer-{hashlib.sha256(prefix.encode()).hexdigest()[:16]}"


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(rule: ElementTree.Element, name: str) -> str:
    return next((one.text or "" for one in rule.iter() if _name(one) == name), "").strip()


def _days(rule: ElementTree.Element) -> str:
    """After how many an object goes."""
    return next((_text(one, "Days") for one in rule if _name(one) == "Expiration"), "")


def _prefix(rule: ElementTree.Element) -> str:
    """What a rule is of: all of one prefix alone, or "" where it is of something else, too."""
    if any(_name(one) in ("And", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan") for one in rule.iter()):
        return ""
    return _text(rule, "Prefix")
