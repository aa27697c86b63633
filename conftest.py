"""Files for the examples in docstrings, each of which runs in a folder that holds them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _beside_example_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run an example that works on files in a folder of its own, with a copy of them."""
    example = getattr(request.node, "dtest", None)
    if example is None or "geo_retina import" not in example.docstring:
        yield
        return
    files = request.getfixturevalue("_example_files")
    folder = request.getfixturevalue("tmp_path")
    for file in files.iterdir():
        if file.suffix == ".pth":  # large, and only read
            (folder / file.name).symlink_to(file)
        else:
            shutil.copy(file, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.fixture(scope="session")
def _example_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files once."""
    from support.examples import make_example_files

    folder = tmp_path_factory.mktemp("examples")
    make_example_files(folder)
    return folder
