"""How many files this process may have open, sockets among them: its soft limit, which it may raise to the hard one."""

from __future__ import annotations

import resource

_UNLIMITED = 1 << 20
"""What the kernel gives at most where nothing says less (``fs.nr_open``)."""

CHILDREN_MAX = 1_024
KEPT_MAX = 256
_KEPT_SHARE = 8


def descriptors_max() -> int:
    """What may be open now."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def obtainable() -> int:
    """What `raise_limit` would come to."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def kept() -> int:
    """How many of them are no stranger's, whoever comes: for the store, logs and what the process opens itself."""
    return min(KEPT_MAX, descriptors_max() // _KEPT_SHARE)


def of_children() -> int:
    """The soft limit of what is started that is none of ours: programs that close all that may be open, or have a word
    for each, are slow where that is a million. They may raise it themselves."""
    return min(CHILDREN_MAX, obtainable())


def raise_limit() -> int:
    """Take as many as may be had, as servers do; answers how many that is. What is not given is gone without."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _number(soft) < _number(hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_number(hard), hard))
        except (OSError, ValueError):
            pass  # a kernel that gives less than it says
    return descriptors_max()


def _number(limit: int) -> int:
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit
