"""Silences what libraries say about choices made here, while any thread of the process needs it.

Warning filters and the levels of loggers belong to the process: of two threads that each changed
and restored them, one would take the other's away, or leave it for good. So they are counted here:
the first user changes them, the last one puts back what was there.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class _Warnings:
    """The filters that are added, and how many users need them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before = warnings.catch_warnings()

    def enter(self, messages: tuple[str, ...], category: type[Warning]) -> None:
        with self.lock:
            if not self.users:
                self.before = warnings.catch_warnings()
                self.before.__enter__()
            self.users += 1
            for message in messages:
                warnings.filterwarnings("ignore", message=message, category=category)

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.before.__exit__(None, None, None)


class _Levels:
    """The levels that loggers had, and how many users changed each."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: dict[str, int] = {}
        self.before: dict[str, int] = {}

    def enter(self, levels: Mapping[str, int]) -> None:
        with self.lock:
            for name, level in levels.items():
                logger = logging.getLogger(name)
                if not self.users.get(name):
                    self.before[name] = logger.level
                self.users[name] = self.users.get(name, 0) + 1
                logger.setLevel(level)

    def leave(self, levels: Mapping[str, int]) -> None:
        with self.lock:
            for name in levels:
                self.users[name] -= 1
                if not self.users[name]:
                    logging.getLogger(name).setLevel(self.before.pop(name))


_warnings = _Warnings()
_levels = _Levels()


@contextmanager
def ignored_warnings(*messages: str, category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings, in all threads, while this or another block like it runs.

    Args:
        messages: regular expressions that the beginning of a warning matches.
        category: kind of the warnings.
    """
    _warnings.enter(messages, category)
    try:
        yield
    finally:
        _warnings.leave()


@contextmanager
def raised_levels(levels: Mapping[str, int]) -> Iterator[None]:
    """Let loggers say nothing beneath a level while this or another block like it runs.

    Args:
        levels: least level, by the logger's name.
    """
    _levels.enter(levels)
    try:
        yield
    finally:
        _levels.leave(levels)


def _start_afresh() -> None:
    """Give a forked child locks that no thread of its parent holds."""
    global _warnings, _levels
    _warnings, _levels = _Warnings(), _Levels()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_start_afresh)
