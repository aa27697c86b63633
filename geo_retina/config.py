"""Assembles the options: strict YAML in, the dataclasses of ``options`` out, and back.

Strict means: a key that nobody knows, a key given twice or a value of another type is an
error that names the file and the key, never a setting that silently does nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from geo_retina.errors import OptionError
from geo_retina.files import from_folder, is_subdataset, read_text, with_file
from geo_retina.options import (
    DetectOptions,
    LabelOptions,
    NetworkOptions,
    RunOptions,
    TrainOptions,
    unknown_key,
)
from geo_retina.options.aliases import GONE_OPTIONS, OLD_OPTIONS, with_new_names, without_gone

if TYPE_CHECKING:
    import yaml
    from pydantic import ValidationError

T = TypeVar("T")

_PATH_KEYS = {
    "data": ("scenes", "labels", "review", "ground"),
    "split": ("areas",),
    "samples": ("cache_folder",),
}
"""The keys that hold paths, by their group."""


def load_train_options(path: str | Path, overrides: Sequence[str] = ()) -> TrainOptions:
    """Read the YAML file of a training run.

    In the paths of scenes, labels, ground, areas and the cache, ``~`` and ``$VARIABLES`` are
    expanded and relative ones are taken from the file's own folder, those of overrides from the
    current one. ``GEO_RETINA_DATA`` names the folder of the data that the configs in the
    repository refer to.

    Args:
        path: the file; its keys are the fields of TrainOptions.
        overrides: changes as ``key=value``, such as ``loss.box_weight=1.5``; the value is YAML.

    Returns:
        The checked options, with absolute paths.

    Raises:
        OptionError: the file cannot be read, or a key or value is not right.

    Examples:
        >>> from geo_retina import load_train_options
        >>> options = load_train_options("train.yaml", ["loss.box_weight=1.5"])
        >>> options.name, options.loss.box_weight
        ('example', 1.5)
    """
    path = Path(path)
    values, source = _read_yaml(path), str(path)
    _rename_old(values, source)
    for override in overrides:
        _override(values, override)
    _refuse_unknown(values, TrainOptions, source)
    _tidy_labels(values, source)
    _resolve_paths(values, path.resolve().parent, source)
    if isinstance(values.get("network"), dict):
        _refuse_unknown(values["network"], NetworkOptions, source, "network.")
        _build(NetworkOptions, values["network"], source, "network.")
    return _build(TrainOptions, values, source)


def load_detect_config(path: str | Path) -> tuple[DetectOptions, RunOptions]:
    """Read a YAML file with keys of DetectOptions and RunOptions side by side.

    Raises:
        OptionError: the file cannot be read, or a key or value is not right.
    """
    values, source = read_detect_config(path), str(path)
    detect_keys = {f.name for f in fields(DetectOptions)}
    detect = {key: value for key, value in values.items() if key in detect_keys}
    run = {key: value for key, value in values.items() if key not in detect_keys}
    return _build(DetectOptions, detect, source), _build(RunOptions, run, source)


def read_detect_config(path: str | Path) -> dict[str, Any]:
    """Read the keys that such a file gives, so that a caller can tell them from defaults.

    Raises:
        OptionError: the file cannot be read, or has a key that neither dataclass knows.
    """
    old = OLD_OPTIONS["DetectOptions"]
    values = with_new_names(_read_yaml(Path(path)), old, source=f"{path}: ")
    if isinstance(values.get("merge"), dict):
        gone = GONE_OPTIONS["MergeOptions"]
        values["merge"] = without_gone(values["merge"], gone, "merge.", source=f"{path}: ")
    known = {f.name for options in (DetectOptions, RunOptions) for f in fields(options)}
    _refuse_keys(values, known, "", str(path))
    for options in (DetectOptions, RunOptions):
        own = {f.name for f in fields(options)}
        _refuse_unknown({k: v for k, v in values.items() if k in own}, options, str(path))
    return values


def dump_options(*options: object) -> str:
    """Write option dataclasses as one YAML mapping that the loaders read back.

    The fields of several dataclasses stand side by side, so their names must differ.
    """
    import yaml

    values: dict[str, Any] = {}
    for each in options:
        if not is_dataclass(each) or isinstance(each, type):
            raise TypeError(f"{each!r} is not an options value")
        values.update(_plain(asdict(each)))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Turn tuples into lists, which is what YAML has."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise OptionError(f"the config {path} does not exist; check its path") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise OptionError(f"the config {path} cannot be read: {reason}") from error
    values = _parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise OptionError(f"{path} holds {_kind(values)}, expected a mapping such as 'key: value'")
    for key in values:
        if not isinstance(key, str):
            raise OptionError(f"{path}: the key {key!r} is {_kind(key)}, expected a name")
    return values


def _parse_yaml(text: str, source: str) -> Any:
    import yaml

    loader = None
    try:
        loader = _strict_loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_bomb(node, source)
        return loader.construct_document(node)
    except OptionError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise OptionError(f"{source}{place}: not valid YAML, {error.problem}") from error
    except yaml.YAMLError as error:
        raise OptionError(f"{source}: not valid YAML, {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise OptionError(f"{source}: not valid YAML, it is {_TOO_DEEP}") from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        # A tag such as !!int or !!timestamp before what is none.
        raise OptionError(f"{source}: not valid YAML, {error}") from error
    finally:
        if loader is not None:
            loader.dispose()


_MOST_LEVELS = 40
_MOST_VALUES = 1_000_000
_TOO_DEEP = f"nested more than {_MOST_LEVELS} levels deep"


def _refuse_bomb(node: yaml.Node, source: str) -> None:
    """Refuse anchors that name themselves or multiply beyond any config.

    Raises:
        OptionError: they do.
    """
    counts: dict[int, int] = {}

    def count(node: yaml.Node, level: int) -> int:
        if level > _MOST_LEVELS:
            raise OptionError(f"{source}: not valid YAML, it is {_TOO_DEEP}")
        if id(node) not in counts:
            parts = node.value if isinstance(node.value, list) else ()
            flat = [n for part in parts for n in (part if isinstance(part, tuple) else (part,))]
            counts[id(node)] = 1 + sum(count(each, level + 1) for each in flat)
        if counts[id(node)] > _MOST_VALUES:
            raise OptionError(
                f"{source} holds more than {_MOST_VALUES:,} values once its aliases are written "
                "out, expected fewer; name scenes in a list of their own"
            )
        return counts[id(node)]

    count(node, 0)


_FLOAT = re.compile(
    r"""[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+  # 1e-3 as in YAML 1.2 and Python
    |[0-9]+\.[0-9]*|\.[0-9]+|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)


def _strict_loader() -> type[yaml.SafeLoader]:
    """Make PyYAML's safe loader refuse duplicate keys and read ``1e-3`` as a number.

    PyYAML lets the last of two equal keys win, and follows YAML 1.1, where ``1e-3`` without
    a point is a string.
    """
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (list, dict)):
                    problem = "a key must be a name"
                elif key in seen:
                    problem = f"the key {key} is given twice"
                else:
                    seen.add(key)
                    continue
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            return super().construct_mapping(node, deep)

    StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    return StrictLoader


def _override(values: dict[str, Any], override: str) -> None:
    """Set one ``key.sub=value`` in the mapping, making the mappings on its way."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise OptionError(
            f"the override {override} has no key and value, expected such as loss.box_weight=1.5"
        )
    *parents, last = key.strip().split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise OptionError(
                f"the override {override}: {parent} is {_kind(child)}, not a group of keys"
            )
        node = child
    source = f"the override {override}"
    old = _old_names(TrainOptions).get(parents[0] if len(parents) == 1 else "", {})
    (last,) = with_new_names({last: None}, old, f"{'.'.join(parents)}.", source=f"{source}: ")
    value = _parse_yaml(text, source)
    for name in reversed((*parents, last)):
        value = {name: value}
    _resolve_paths(value, Path.cwd(), source)
    for name in (*parents, last):
        value = value[name]
    node[last] = value
    _rename_old(values, source)


def _old_names(options: type) -> dict[str, Mapping[str, str]]:
    """Collect the old names of fields, by group of options."""
    groups = get_type_hints(options).items()
    names = {group: getattr(hint, "__name__", "") for group, hint in groups}
    return {group: OLD_OPTIONS[name] for group, name in names.items() if name in OLD_OPTIONS}


def _rename_old(values: dict[str, Any], source: str) -> None:
    """Give keys of a training run that have their old names those of today, in place."""
    for group, old in _old_names(TrainOptions).items():
        if isinstance(values.get(group), dict):
            values[group] = with_new_names(values[group], old, f"{group}.", source=f"{source}: ")


def _refuse_unknown(
    values: Mapping[str, Any], options: type, source: str, prefix: str = ""
) -> None:
    """Refuse keys that are no fields, here and in the dataclasses below."""
    _refuse_keys(values, [f.name for f in fields(options)], prefix, source)
    for name, hint in get_type_hints(options).items():
        if is_dataclass(hint) and isinstance(values.get(name), Mapping):
            assert isinstance(hint, type)
            _refuse_unknown(values[name], hint, source, f"{prefix}{name}.")


def _refuse_keys(values: Mapping[str, Any], known: Iterable[str], prefix: str, source: str) -> None:
    known = [f"{prefix}{name}" for name in known]
    for key in values:
        if f"{prefix}{key}" not in known:
            raise OptionError(f"{source}: {unknown_key(f'{prefix}{key}', known)}")


def _tidy_labels(values: dict[str, Any], source: str) -> None:
    """Make ``data.labels`` a path, or a list of groups each of which is right, in place."""
    data = values.get("data")
    if not isinstance(data, dict) or "labels" not in data or isinstance(data["labels"], str):
        return
    given = [data["labels"]] if isinstance(data["labels"], dict) else data["labels"]
    if not isinstance(given, list):
        raise OptionError(
            f"{source}: data.labels is {_show(given)}, expected a file, or a list of layers"
        )
    groups = [{"path": item} if isinstance(item, str) else item for item in given]
    for i, group in enumerate(groups):
        prefix = f"data.labels.{i}."
        if not isinstance(group, dict):
            raise OptionError(
                f"{source}: {prefix[:-1]} is {_show(group)}, expected a file or a group of keys"
            )
        _refuse_unknown(group, LabelOptions, source, prefix)
        _build(LabelOptions, group, source, prefix)
    data["labels"] = groups


def _resolve_paths(values: dict[str, Any], folder: Path, source: str) -> None:
    """Make the paths in the options absolute, in place; wrong types are left to the check."""
    weights = values.get("weights")
    if isinstance(weights, str) and (weights.endswith(".safetensors") or os.sep in weights):
        # Else it is the name of a bundled model.
        values["weights"] = _absolute(weights, "weights", folder, source)
    for name, keys in _PATH_KEYS.items():
        group = values.get(name)
        if isinstance(group, dict):
            _resolve_keys(group, keys, f"{name}.", folder, source)
    labels = values.get("data", {}).get("labels") if isinstance(values.get("data"), dict) else None
    layers = [labels] if isinstance(labels, dict) else labels
    for i, layer in enumerate(layers if isinstance(layers, list) else ()):
        if isinstance(layer, dict):
            _resolve_keys(layer, ("path",), f"data.labels.{i}.", folder, source)


def _resolve_keys(
    group: dict[str, Any], keys: Sequence[str], prefix: str, folder: Path, source: str
) -> None:
    for key in keys:
        value, name = group.get(key), f"{prefix}{key}"
        if isinstance(value, str):
            group[key] = _absolute(value, name, folder, source)
        elif isinstance(value, list):
            group[key] = [
                _absolute(v, name, folder, source) if isinstance(v, str) else v for v in value
            ]


def _absolute(text: str, key: str, folder: Path, source: str) -> str:
    expanded = os.path.expanduser(os.path.expandvars(text))
    unset = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unset:
        raise OptionError(
            f"{source}: {key} uses {unset.group()}, which is not set; set that environment variable"
        )
    if "://" in expanded and not is_subdataset(expanded):
        return expanded
    return with_file(expanded, lambda file: file if "://" in file else from_folder(folder, file))


def _build(options: type[T], values: Mapping[str, Any], source: str, prefix: str = "") -> T:
    """Check the types of the values, strictly, and make the dataclass.

    They go through JSON, where pydantic's strict mode takes a list for a tuple, yet no
    string for a number.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        text = json.dumps(values, default=str)
        return TypeAdapter(options).validate_json(text, strict=True)
    except ValidationError as error:
        raise OptionError(f"{source}: {_first_sentence(error, prefix, values)}") from error


def _first_sentence(error: ValidationError, prefix: str, values: Mapping[str, Any]) -> str:
    """Put the first of pydantic's findings into a sentence: key, found and expected."""
    found, *others = error.errors(include_url=False)
    place = found["loc"]
    # Where one of several types is expected, each has its own finding, with its name at the end.
    either = [other for other in others if place[-1] == "float" and other["loc"][:-1] == place[:-1]]
    key = prefix + ".".join(_keys_of(place, values, found["type"] == "missing"))
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, OptionError):
        return _as_keys(str(cause), key)
    if found["type"] == "missing":
        return f"{key} is missing, and it has no default"
    described = " or ".join(
        each["msg"].removeprefix("Input should be ") for each in [found, *either]
    )
    if found["type"] in ("dataclass_type", "dict_type"):
        described = "a group of keys"
    return f"{key} is {_show(found['input'])}, expected {described.replace('array', 'list')}"


def _keys_of(place: tuple[int | str, ...], values: Any, is_missing: bool) -> list[str]:
    """Cut pydantic's path to the part that the file has; it also names the type it tried last."""
    keys = []
    for i, part in enumerate(place):
        is_key = isinstance(values, Mapping) and part in values
        if is_key or (isinstance(values, (list, tuple)) and isinstance(part, int)):
            keys.append(str(part))
            values = values[part] if is_key or int(part) < len(values) else None
        elif is_missing and i == len(place) - 1:
            keys.append(str(part))
    return keys


def _as_keys(sentence: str, group: str) -> str:
    """Name options as the file does: ``loss.alpha``, not ``LossOptions.alpha``."""
    group = f"{group.rstrip('.')}." if group else ""
    sentence = sentence.replace("NetworkOptions.", "network.")
    return re.sub(r"\b[A-Z][A-Za-z]*Options\.", group, sentence)


def _show(value: object) -> str:
    """Write a value as the user wrote it, shortened."""
    text = "empty" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: object) -> str:
    names = {dict: "a group of keys", list: "a list", str: "a text", type(None): "empty"}
    return names.get(type(value), f"the value {value}")
