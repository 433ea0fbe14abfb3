"""Logs as they were before: a process that a test began in our own sets up its log for good, debug lines left out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def logs_kept() -> Iterator[None]:
    """What is configured within holds no longer than that, nor what loggers kept of it at their first line."""
    was_set, before = structlog.is_configured(), structlog.get_config()
    try:
        yield
    finally:
        if structlog.get_config() != before:
            _forget(before if was_set else None)


def _forget(before: dict[str, object] | None) -> None:
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)  # type: ignore[arg-type]
    lazy = type(structlog.get_logger())
    for name, module in list(sys.modules.items()):
        if name.startswith("bessemer"):
            for logger in vars(module).values():
                if isinstance(logger, lazy):
                    vars(logger).pop("bind", None)  # the one that it kept
