"""Old spellings of options and of keys on cards, each with the one that replaced it.

They are read with a warning, so that configs and cards of before go on working; nothing writes
them any more. Options without a successor are dropped where they change nothing, else refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from geo_retina.errors import OptionError

T = TypeVar("T")

OLD_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "SplitOptions": {"tune": "val", "tune_fraction": "val_fraction"},
    "DetectOptions": {"views": "tta"},
}
"""By class of options: the old name of each field that has another now."""

OLD_CARD_KEYS: Mapping[str, Mapping[str, str]] = {
    "metrics": {"tune": "val"},
    "training": {"fit_labels": "train_labels"},
    "training.labels": {"mended": "repaired"},
    "training.options.split": OLD_OPTIONS["SplitOptions"],
}
"""By path of a group on a card: the old name of each key that has another now."""

GONE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "MergeOptions": {"method": "select", "soft_sigma": 0.5, "soft_score": 0.3},
}
"""By class of options: each field that is no option any more, with the default that it had."""

_WHERE = "soft-nms and fuse are in benchmarks/soft_and_fused.py of the source now"


class OldNameWarning(FutureWarning):
    """An option was given by the name that it had in an earlier version."""


def gone_option(given: str, name: str) -> OptionError:
    """Make the error for an option that is none any more.

    Args:
        given: what was given, such as ``MergeOptions.method is 'fuse'``.
        name: what to leave out.
    """
    return OptionError(f"{given}, but that is no option any more: {_WHERE}; leave {name} out")


def without_gone(
    values: Mapping[str, Any], gone: Mapping[str, Any], prefix: str = "", *, source: str = ""
) -> dict[str, Any]:
    """Drop what is no option any more, as configs of before have it.

    Args:
        values: by name.
        gone: names that are no options any more, each with its default.
        prefix: what stands before a name in a message, such as ``merge.``.
        source: what a message begins with, such as ``trees.yaml: ``.

    Raises:
        OptionError: one has another value than its default, so that results would change.
    """
    for name in gone.keys() & values.keys():
        if values[name] != gone[name]:
            raise gone_option(f"{source}{prefix}{name} is {values[name]}", name)
        warnings.warn(
            f"{source}{prefix}{name} is no option any more; leave it out",
            OldNameWarning,
            stacklevel=3,
        )
    return {name: value for name, value in values.items() if name not in gone}


def with_new_names(
    values: Mapping[str, Any],
    old: Mapping[str, str],
    prefix: str = "",
    *,
    source: str = "",
    quiet: bool = False,
) -> dict[str, Any]:
    """Replace old names of keys by those of today, in the order given.

    Args:
        values: by name, old or new.
        old: today's name of each old one.
        prefix: what stands before a name in a message, such as ``split.``.
        source: what a message begins with, such as ``trees.yaml: ``.
        quiet: give no warning, as for a card, whose reader did not write it.

    Returns:
        The values by today's names.

    Raises:
        OptionError: a value is given by both its names.
    """
    for before, now in old.items():
        if before in values and now in values:
            raise OptionError(
                f"{source}{prefix}{before} and {prefix}{now} are both given, and {before} is the "
                f"old name of {now}; drop {before}"
            )
        if before in values and not quiet:
            warnings.warn(
                f"{source}{prefix}{before} is the old name of {prefix}{now}; write {now}",
                OldNameWarning,
                stacklevel=3,
            )
    return {old.get(name, name): value for name, value in values.items()}


def accept_old_names(options: type[T]) -> type[T]:
    """Let a dataclass of options be made by the fields of before, too."""
    old = OLD_OPTIONS.get(options.__name__, {})
    gone = GONE_OPTIONS.get(options.__name__, {})
    make: Callable[..., None] = options.__init__

    @wraps(make)
    def init(self: T, *args: Any, **values: Any) -> None:
        if not old.keys().isdisjoint(values):
            values = with_new_names(values, old, f"{options.__name__}.")
        if not gone.keys().isdisjoint(values):
            values = without_gone(values, gone, f"{options.__name__}.")
        make(self, *args, **values)

    options.__init__ = init  # type: ignore[assignment]
    return options
