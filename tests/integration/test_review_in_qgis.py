"""A file under review in a real QGIS: its styles, its form, and what its editing leaves."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from geo_retina.options import ReviewOptions
from geo_retina.review import read_review, review_detections
from geo_retina.vector.writers.styles import read_styles
from tests.support.reviews import rows_of, scattered, write_found

SCRIPT = Path(__file__).parents[1] / "support" / "edit_in_qgis.py"


@pytest.fixture
def qgis():
    """A Python with PyQGIS, and an environment in which it needs no screen."""
    python = os.environ.get("QGIS_PYTHON", "/usr/bin/python3")
    environment = {"PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen", "HOME": "/tmp"}
    try:
        subprocess.run(
            [python, "-c", "import qgis.core"], env=environment, check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"{python} has no PyQGIS; QGIS_PYTHON names a Python that has")
    return python, environment


def test_editing_in_qgis_loses_nothing(tmp_path, qgis):
    python, environment = qgis
    path = write_found(tmp_path / "found.gpkg", scattered(200))
    options = ReviewOptions(budget=10, cells=20)
    review_detections(path, options)
    before, styles, columns = rows_of(path), read_styles(path), columns_of(path)

    def edit_once():
        done = subprocess.run(
            [python, SCRIPT, path],
            env={**environment, "XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    seen = edit_once()
    statuses = ["new", "accepted", "rejected", "changed", "added"]
    assert seen["coloured_by"] == ["status", "status"]
    assert seen["statuses"][:5] == seen["choices"] == statuses
    assert (seen["drop_down"], seen["hidden"]) == ("ValueMap", "Hidden")
    assert "priority" in seen["sorted_by"]
    assert seen["new_feature"] == {"status": "added", "weight": 1}
    assert seen["saved"] == [True, True]
    review = read_review(path)
    counts = dict(zip(*np.unique(review.cases.status.astype(str), return_counts=True), strict=True))
    assert {k: counts[k] for k in statuses[1:]} == dict.fromkeys(statuses[1:], 1)
    assert review.is_done.sum() == 1
    after = {row[0]: row for row in rows_of(path)}
    assert [after[row[0]] for row in before[3:]] == before[3:]
    assert read_styles(path) == styles
    report = review_detections(path, options)
    assert report.entries == 4
    # A second session finds columns, colours, form and order as the first did, and saves too.
    assert edit_once() == seen
    assert columns_of(path) == columns
    assert read_styles(path) == styles
    assert review_detections(path, options).entries >= 5


def columns_of(path):
    """Names, types and defaults of all columns a person edits, and of what stands behind them."""
    tables = ("review", "cells", "review_found", "review_frame", "review_design", "detections")
    return {name: rows_of(path, f"pragma_table_info('{name}')") for name in tables}
