"""How option dataclasses become flags, and what may stand for a flag."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import App, ArgumentCollection, CoercionError, Group, Parameter, Token
from cyclopts.config import Dict

from geo_retina.cli import _voice
from geo_retina.cli._option_names import flag_name
from geo_retina.options import DataOptions, split_names
from geo_retina.options.aliases import (
    GONE_OPTIONS,
    OLD_OPTIONS,
    OldNameWarning,
    gone_option,
    with_new_names,
)

DETECTION = Parameter(name="*", group=Group("Detection (changes what is found)", sort_key=1))
RUN = Parameter(name="*", group=Group("Run (does not change what is found)", sort_key=2))
IMPORT = Parameter(name="*", group=Group("What the checkpoint does not say", sort_key=1))
Outs = Annotated[list[Path], Parameter(consume_multiple=False)]
MATCHING = Parameter(name="*", group=Group("Matching", sort_key=1))
LABELS = Parameter(name="*", group=Group("Labels and scenes", sort_key=1))


@dataclass(frozen=True, kw_only=True)
class LabelFlags:
    """How labels and their scenes are read by commands that take these as flags."""

    layer: str | None = None
    """Layer of the labels' file; needed where it holds several."""

    where: str | None = None
    """Attribute filter on the labels, as in SQL's WHERE."""

    class_column: str | None = None
    """Column with the class names; left out, all are of one class."""

    scene_column: str | None = None
    """Column that names the stem of the scene file a label belongs to."""

    point_size_m: float | None = None
    """Side of the square around point labels; left out, a model's usual object."""

    point_size_column: str | None = None
    """Column with that side, in metres, for each label."""

    length_column: str | None = None
    """Column with the length in metres of the rectangle that a point stands for."""

    width_column: str | None = None
    """Column with that rectangle's width in metres."""

    azimuth_column: str | None = None
    """Column with the direction of its length, in degrees clockwise from north."""

    encoding: str | None = None
    """Encoding of the texts in a shapefile that does not say it, such as GBK."""

    ground: str | None = None
    """Polygons of the ground that was labelled; left out, all of the scenes."""

    bands: tuple[int, ...] | None = None
    """The files' bands (from 1); left out, as a model's card says, without a model all."""

    def data(
        self, scenes: Sequence[str], labels: str | None, review: str | None = None
    ) -> DataOptions:
        """Add scenes and labels, or a review in their place."""
        return DataOptions(scenes=tuple(scenes), labels=labels or (), review=review, **vars(self))


AS_THEY_ARE = LabelFlags()

_METRES = re.compile(r"^\s*([-+.\deE]+)\s*m\s*$")
_PERCENT = re.compile(r"^\s*([-+.\deE]+)\s*%\s*$")
_FRACTION = re.compile(r"[-+]?\d*\.\d*(e[-+]?\d+)?", re.IGNORECASE)


def with_new_flags(tokens: Sequence[str]) -> list[str]:
    """Replace old flags by those of today.

    Raises:
        OptionError: a flag is given by both its names, or is none any more.
    """
    prefix = "--" if "merge" in tokens[:1] else "--merge."
    gone = {f"{prefix}{flag_name(field)}" for field in GONE_OPTIONS["MergeOptions"]}
    for token in tokens:
        if token.partition("=")[0] in gone:
            raise gone_option(f"{token} is given", token.partition("=")[0])
    old = {
        f"--{flag_name(before)}": f"--{flag_name(now)}"
        for before, now in OLD_OPTIONS["DetectOptions"].items()
    }
    with_new_names({token.partition("=")[0]: None for token in tokens}, old)
    parts = (token.partition("=") for token in tokens)
    return ["".join([old.get(flag, flag), *value]) for flag, *value in parts]


@contextmanager
def tell_old_names() -> Iterator[None]:
    """Print once, as a sentence, that a flag or key has another name now."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", OldNameWarning)
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if not issubclass(category, OldNameWarning):
                show(message, category, *place)
            elif str(message) not in shown:
                shown.add(str(message))
                _voice.warn(str(message))

        warnings.showwarning = tell  # type: ignore[assignment]
        yield


_WHOLE = {("filter", "--classes")}
"""Lists that are split only where the file's own names are known: a name may hold a comma."""


def tidy_values(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Read metres written ``6m``, shares ``5%`` and lists ``4,1,2``; refuse 12.5 for 12."""
    if not commands:  # the whole command line, whose paths and filters may hold commas
        return
    for argument in arguments:
        numbers = _numbers(argument.hint)
        if not numbers and not _is_texts(argument.hint):
            continue
        tokens = list(argument.tokens)
        if (*commands[-1:], argument.name) not in _WHOLE:
            tokens = [part for token in tokens for part in _split(token, texts=not numbers)]
        if argument.field_info.name.endswith("_m"):
            tokens = [t.evolve(value=_METRES.sub(r"\1", t.value)) for t in tokens]
        if numbers == {float}:
            tokens = [t.evolve(value=_as_fraction(t.value)) for t in tokens]
        for token in tokens:
            if int in numbers and _FRACTION.fullmatch(token.value):
                raise CoercionError(token=token, argument=argument, target_type=int)
        argument.tokens[:] = tokens


def _as_fraction(text: str) -> str:
    """Write a share as a number: ``5%`` is 0.05."""
    percent = _PERCENT.match(text)
    try:
        return text if percent is None else repr(float(percent[1]) / 100)
    except ValueError:  # not a number that anybody knows; the parser says so
        return text


def _numbers(hint: Any) -> set[type]:
    """List the kinds of number that a type hint mentions, at any depth."""
    inner = get_args(hint)
    return set().union(*map(_numbers, inner)) if inner else {hint} & {int, float}


def _is_texts(hint: Any) -> bool:
    """Check whether a type hint means several texts, such as names of classes."""
    return tuple[str, ...] in (hint, *get_args(hint))


def _split(token: Token, *, texts: bool) -> list[Token]:
    """Split a list at its commas; a text with commas of its own stands in quotes."""
    parts = split_names(token.value) if texts else token.value.split(",")
    if texts and len(parts) == 1:
        return [token.evolve(value=parts[0])]
    if len(parts) == 1:
        return [token]
    return [token.evolve(value=part, index=i) for i, part in enumerate(parts)]


def read_config_flag(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill flags that were not given from the YAML file that ``--config`` names."""
    given = [a for a in arguments if a.name == "--config" and a.tokens]
    if not given:
        return
    from geo_retina.config import load_detect_config, read_detect_config

    path = given[0].tokens[-1].value
    load_detect_config(path)  # checks types and ranges, naming the file
    values = _as_flag_names(read_detect_config(path))
    # Under the command's name, or a key that is also a command, such as merge, would be left out.
    for name in reversed(commands):
        values = {name: values}
    Dict(values, source=path)(app, commands, arguments)


def _as_flag_names(values: dict[str, Any]) -> dict[str, Any]:
    return {
        flag_name(key): _as_flag_names(value) if isinstance(value, dict) else value
        for key, value in values.items()
    }
