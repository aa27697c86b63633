"""The exception tree."""

from __future__ import annotations

import inspect

import pytest

from geo_retina import errors

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind is not errors.GeoRetinaError
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_also_the_builtin_it_is(kind):
    root, builtin = kind.__bases__
    assert root is errors.GeoRetinaError
    assert builtin in (ValueError, OSError, RuntimeError)
    with pytest.raises(builtin, match="one sentence"):
        raise kind("one sentence")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_drawn_tree_is_the_real_one(kind):
    drawn = [line.split() for line in (errors.__doc__ or "").splitlines() if "──" in line]
    bases = {words[1]: words[2] for words in drawn}
    assert bases[kind.__name__] == f"({kind.__bases__[1].__name__})"
    assert len(bases) == len(KINDS)
