"""Which scene a name means that labels give, however it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from geo_retina.errors import LabelError
from geo_retina.files import subdataset_file
from geo_retina.options import same_text
from geo_retina.scene.finding import stem

_RANKS, _STEM = 4, 2
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,3}$")
"""Of a file; ``site.2019`` has none."""


def match_names(
    names: Sequence[str], paths: Sequence[str], *, given_in: str, alone: bool = False
) -> dict[int, int]:
    """Find the scenes that names mean.

    A name means the scene whose path ends in it, with or without suffix; then the one of its file
    name, of its stem, and last of its stem in another case. What a better rule has found, a later
    one does not touch, but that ``a.tif`` may mean the scene that ``a`` does. Slashes may be those
    of Windows, and characters percent-encoded. Accents may be parted from their letters, as macOS
    does, unless scenes differ in nothing else.

    Args:
        names: as labels have them.
        paths: of the scenes.
        given_in: the labels' file, for the message.
        alone: refuse two names of one scene, even if both are spellings of its very path.

    Returns:
        Positions of scenes by positions of names, ascending; names that mean none are left out.

    Raises:
        LabelError: a name could mean several scenes, or names that differ could mean one.
    """
    form = same_text if len(set(map(same_text, paths))) == len(set(paths)) else str
    keys: list[dict[str, list[int]]] = [{} for _ in range(_RANKS)]
    for scene, path in enumerate(paths):
        for rank, key in _scene_keys(path):
            keys[rank].setdefault(form(key), []).append(scene)
    found: dict[int, int] = {}
    for rank in range(_RANKS):
        claimed = set(found.values())
        fresh: dict[int, int] = {}
        for number, name in enumerate(names):
            if number in found:
                continue
            scenes = {i for key in _name_keys(name, rank) for i in keys[rank].get(form(key), ())}
            if scenes - claimed:
                fresh[number] = _only(scenes - claimed, name, paths, given_in)
            elif rank == _STEM and len(scenes) == 1 and not (alone or "/" in name or "\\" in name):
                fresh[number] = next(iter(scenes))
        if rank or alone:
            # Images of one name are two all the same; equal names of a column are one.
            same = {n: str(n) if alone else form(names[n]) for n in fresh}
            _refuse_twins(fresh, same, names, paths, given_in)
        found |= fresh
    return dict(sorted(found.items()))


def _only(scenes: set[int], name: str, paths: Sequence[str], given_in: str) -> int:
    if len(scenes) > 1:
        first, second = (paths[i] for i in sorted(scenes)[:2])
        raise LabelError(
            f"{first} and {second} share the stem {stem(first)}, so {name} in {given_in} cannot "
            "tell them apart; rename one, or give names with their folders, or leave out the "
            "scene column to join labels by place"
        )
    return next(iter(scenes))


def _refuse_twins(
    found: Mapping[int, int],
    same: Mapping[int, str],
    names: Sequence[str],
    paths: Sequence[str],
    given_in: str,
) -> None:
    by_scene: dict[int, dict[str, str]] = {}
    for number, scene in found.items():
        by_scene.setdefault(scene, {}).setdefault(same[number], names[number])
    for scene, different in by_scene.items():
        twins = list(different.values())
        if len(twins) > 1:
            raise LabelError(
                f"{given_in} has {len(twins)} names that could be {paths[scene]}, such as "
                f"{twins[0]} and {twins[1]}; give them names that tell them apart"
            )


def _scene_keys(path: str) -> Iterator[tuple[int, str]]:
    """List by rank a scene's spellings: all ends of its path, its file name, and its stem."""
    own = stem(path)
    file = subdataset_file(path)
    file = unquote(urlsplit(file).path) if "://" in file else file
    whole = PurePosixPath(file.replace("\\", "/"))
    for last in dict.fromkeys((whole.name, own)):
        parts = [*whole.parts[:-1], last]
        for start in range(len(parts)):
            yield 0, "/".join(parts[start:])
    yield 1, whole.name
    yield 2, own
    yield 3, own.casefold()


def _name_keys(name: str, rank: int) -> list[str]:
    """List spellings to look for at a rank, of a name as it is and as other systems write it."""
    plain = unquote(name.partition("?")[0].strip()).replace("\\", "/")
    keys = []
    for each in dict.fromkeys((name, plain)):
        path = PurePosixPath(each)
        parts = [part for part in path.parts if part not in ("/", ".", "..")]
        if not parts:
            continue
        stems = dict.fromkeys((parts[-1], _SUFFIX.sub("", parts[-1])))
        keys += {
            0: ["/".join(parts)],
            1: [parts[-1]],
            2: list(stems),
            3: [own.casefold() for own in stems],
        }[rank]
    return keys
