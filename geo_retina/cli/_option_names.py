"""What a command calls the options and arguments that the library's sentences name.

The library says ``DetectOptions.stretch=(2, 98)``, ``overwrite=True``, ``the argument crs`` or
``the option encoding``. At a command line these are ``--stretch 2,98``, ``--overwrite``, ``--crs``
and ``--encoding``; for a training, whose options stand in a file, they are keys such as
``loss.alpha``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from cyclopts import Parameter

from geo_retina import options as all_options

Command = Callable[..., Any]

TrainingConfig = Annotated[Path, Parameter(name="CONFIG")]
"""The parameter of a command whose options stand in a training's file, and in ``--set``."""

_OPTION = re.compile(r"\b([A-Z]\w*Options\.\w+)(?:=(\([^)]*\)|\"[^\"]*\"|[\w.]*\w))?")
_TRUE = re.compile(r"(?<![\w.])(\w+)=True\b")
_NAMED = re.compile(r"\bthe (?:argument|option) (\w+)\b")
_DATA = re.compile(r"\bdata\.(\w+)(?: in the config)?")

_commands: list[Command] = []
"""All commands, in the order of the help; the command line itself fills it."""

_spoken: ContextVar[Command | None] = ContextVar("command", default=None)


def flag_name(field: str) -> str:
    """Name the flag of a field: ``overlap_px`` is ``--overlap-px``, ``radius_m`` is ``--radius``.

    Metres and seconds, unlike pixels, are what a number alone would be taken for; that of metres
    may even say so: ``--radius 6m``.
    """
    return field.removesuffix("_m").removesuffix("_s").replace("_", "-").strip("-")


def register(command: Command) -> None:
    """Let options that another command lacks be named as this one does."""
    _commands.append(command)


@contextmanager
def answering(command: Command | None) -> Iterator[None]:
    """Let sentences inside be said to the user of a command."""
    token = _spoken.set(command)
    try:
        yield
    finally:
        _spoken.reset(token)


def as_flags(sentence: str, command: Command | None = None) -> str:
    """Name options in a sentence as the user of a command types them.

    Args:
        sentence: of the library.
        command: left out, the one that ``answering`` names, if any. An option that it does not
            have is named as the first command that has it does.
    """
    names = _names_of(command or _spoken.get())
    sentence = _OPTION.sub(lambda m: _typed(names.option(m[1]), m[2]), sentence)
    for form in (_TRUE, _NAMED):
        sentence = form.sub(lambda m: names.by_field.get(m[1], m[0]), sentence)
    if names.is_training:
        return sentence.replace("the override ", "--set ")
    return _DATA.sub(lambda m: names.by_field.get(m[1], m[0]), sentence)


@dataclass(frozen=True)
class _Names:
    """What a command calls things.

    Args:
        arguments: flags of single arguments, by the argument.
        options: flags or keys of options, by class and field, such as ``RunOptions.batch``.
        is_training: its options stand in a training's file.
    """

    arguments: Mapping[str, str]
    options: Mapping[str, str]
    is_training: bool

    @property
    def by_field(self) -> dict[str, str]:
        """All names by the field alone; of several, the first."""
        own: dict[str, str] = dict(self.arguments)
        for option, name in self.options.items():
            own.setdefault(option.partition(".")[2], name)
        return own

    def option(self, option: str) -> str:
        """Return the name of an option such as ``RunOptions.batch``."""
        group, _, field = option.partition(".")
        if not hasattr(all_options, group):
            return option
        others = (_names_of(command).options for command in _commands)
        elsewhere = next((known[option] for known in others if option in known), option)
        return self.options.get(option, self.by_field.get(field, elsewhere))


@cache
def _names_of(command: Command | None) -> _Names:
    """Derive a command's names from its signature."""
    if command is None:
        return _Names({}, {}, False)
    arguments: dict[str, str] = {}
    options: dict[str, str] = {}
    is_training = False
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *notes = get_args(hints[name]) if hasattr(hints[name], "__metadata__") else [None]
        kind = kind or hints[name]
        if hints[name] == TrainingConfig:
            is_training, options = True, _training_keys()
        elif is_dataclass(kind):
            options |= {key: _flag(path) for key, path in _flat(kind)}
        elif parameter.kind is parameter.KEYWORD_ONLY:
            given = [n for note in notes if isinstance(note, Parameter) for n in note.name or ()]
            arguments[name] = given[0] if given else f"--{flag_name(name)}"
    return _Names(arguments, options, is_training)


def _training_keys() -> dict[str, str]:
    """List the keys of a training's config by class and field, those of no group first."""
    network = {key: f"network.{path[0]}" for key, path in _flat(all_options.NetworkOptions)}
    keys = {key: ".".join(path) for key, path in _flat(all_options.TrainOptions)}
    return dict(sorted({**keys, **network}.items(), key=lambda item: item[1].count(".")))


def _flat(options: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the fields of a class of options and of those in it, each with the way to it."""
    hints = get_type_hints(options)
    for field in fields(options):
        way = (*path, field.name)
        yield f"{options.__name__}.{field.name}", way
        for inner in _classes_in(hints[field.name]):
            yield from _flat(inner, way)


def _classes_in(hint: Any) -> list[Any]:
    """List the dataclasses that a type hint mentions, at any depth."""
    inner = get_args(hint)
    return [hint] if is_dataclass(hint) else [c for each in inner for c in _classes_in(each)]


def _flag(path: tuple[str, ...]) -> str:
    return "--" + ".".join(map(flag_name, path))


def _typed(name: str, value: str | None) -> str:
    """Put a value behind the name of its option as it is typed."""
    if value is None:
        return name
    text = value.strip('()"').replace(", ", ",")
    if not name.startswith("--"):
        return f"{name}={text.lower() if text in ('True', 'False') else text}"
    return name if text == "True" else f"{name} {text}"
