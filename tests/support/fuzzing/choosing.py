"""Damage to bytes and JSON values, led by whoever chooses: Hypothesis, atheris or a random state.

A ``Choose`` takes n and gives an integer from 0 to n - 1.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Choose = Callable[[int], int]
T = TypeVar("T")

_NUMBERS = (0, 1, 2, 3, 7, 12, 16, 127, 128, 255, 256, 4096, 65535, 65536)
_NUMBERS += (2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    0.5,
    1e308,
    -1e308,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\x00",
    "\ud800",
    "nan",
    "-1",
    "../../etc/passwd",
    "/vsimem/none",
    "é" * 3000,
    [],
    [[]],
    [None],
    [0, 0, 0, 0],
    [1, "a", None, {}],
    {},
    {"a": 1},
    {"type": "Point", "coordinates": None},
)


def pick(choose: Choose, values: Sequence[T]) -> T:
    """One of several values."""
    return values[choose(len(values))]


def damage_bytes(choose: Choose, data: bytes, *, first: int | None = None) -> bytes:
    """Change bytes in one to four ways.

    Args:
        choose: who chooses.
        data: what a good file holds.
        first: keep to so many bytes at its beginning for changes within, where headers are.
    """
    for _ in range(1 + choose(4)):
        data = pick(choose, _WAYS)(choose, data, min(len(data), first or len(data)))
    return data


def _cut(choose: Choose, data: bytes, reach: int) -> bytes:
    return data[: choose(len(data) + 1)]


def _cut_head(choose: Choose, data: bytes, reach: int) -> bytes:
    return data[choose(max(1, min(64, len(data)))) :]


def _flip(choose: Choose, data: bytes, reach: int) -> bytes:
    changed = bytearray(data)
    for _ in range(1 + choose(8)):
        if reach and len(changed):
            changed[choose(min(reach, len(changed)))] ^= 1 << choose(8)
    return bytes(changed)


def _number(choose: Choose, data: bytes, reach: int) -> bytes:
    """Write an extreme count or offset somewhere."""
    kind = pick(choose, ("<H", ">H", "<I", ">I", "<Q", ">Q"))
    number = pick(choose, _NUMBERS) & (256 ** struct.calcsize(kind) - 1)
    at = choose(reach + 1)
    return data[:at] + struct.pack(kind, number) + data[at + struct.calcsize(kind) :]


def _float(choose: Choose, data: bytes, reach: int) -> bytes:
    value = pick(choose, (float("nan"), float("inf"), -1e308, 0.0, 1e-320))
    at = choose(reach + 1)
    return data[:at] + struct.pack("<d", value) + data[at + 8 :]


def _repeat(choose: Choose, data: bytes, reach: int) -> bytes:
    at = choose(reach + 1)
    part = data[at : at + 1 + choose(64)]
    return data[:at] + part * (1 + choose(20)) + data[at:]


def _drop(choose: Choose, data: bytes, reach: int) -> bytes:
    at = choose(reach + 1)
    return data[:at] + data[at + 1 + choose(64) :]


def _swap(choose: Choose, data: bytes, reach: int) -> bytes:
    a, b = sorted((choose(reach + 1), choose(len(data) + 1)))
    length = choose(32)
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b:]


_WAYS = (_cut, _cut_head, _flip, _flip, _number, _number, _float, _repeat, _drop, _swap)


def damage_json(choose: Choose, value: Any) -> Any:
    """Replace, remove or multiply one to three nodes of a JSON value."""
    for _ in range(1 + choose(3)):
        value = _damage_node(choose, value)
    return value


def _damage_node(choose: Choose, value: Any) -> Any:
    goes_in = isinstance(value, (dict, list)) and value and choose(8)
    if not goes_in:
        return _odd(choose, value)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = pick(choose, keys)
    copy = value.copy()
    action = choose(8)
    if action == 0:
        del copy[key]
    elif action == 1 and isinstance(copy, list):
        copy += [copy[key]] * (1 + choose(3))
    elif action == 1:
        copy[pick(choose, keys)] = copy.pop(key)
    else:
        copy[key] = _damage_node(choose, copy[key])
    return copy


def _odd(choose: Choose, value: Any) -> Any:
    if choose(12) == 0:
        for _ in range(pick(choose, (3, 60, 900, 5000))):
            value = [value]
        return value
    return pick(choose, ODD_VALUES)


def json_text(choose: Choose, value: Any) -> bytes:
    """A JSON value as text; nested deeper than Python's own writer goes, too."""
    depth = 0
    while isinstance(value, list) and len(value) == 1:
        value, depth = value[0], depth + 1
    try:
        text = json.dumps(value, ensure_ascii=bool(choose(2)))
    except RecursionError:
        text = "[" * 3000 + "]" * 3000
    data = ("[" * depth + text + "]" * depth).encode("utf-8", "surrogatepass")
    return data if choose(6) else damage_bytes(choose, data)
