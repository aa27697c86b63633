"""Which suppressions a calibration tries, and which of them are better."""

from types import SimpleNamespace

import pytest

from geo_retina.calibration import calibrating


@pytest.mark.parametrize(
    ("f1_by_iou", "tried", "better"),
    [
        ({0.3: 0.7, 0.2: 0.8, 0.1: 0.75}, [0.2, 0.1], [0.2]),
        ({0.3: 0.7, 0.2: 0.6, 0.4: 0.8, 0.5: 0.9, 0.6: 0.9}, [0.2, 0.4, 0.5, 0.6], [0.4, 0.5]),
        ({0.3: 0.7, 0.2: 0.7, 0.4: 0.7}, [0.2, 0.4], []),
    ],
    ids=["lower", "higher", "neither"],
)
def test_suppressions_are_tried_as_long_as_they_are_better(monkeypatch, f1_by_iou, tried, better):
    seen = []

    def detect_and_fit(model, nms_iou, ground, run):
        seen.append(nms_iou)
        return SimpleNamespace(nms_iou=nms_iou, f1=f1_by_iou[nms_iou])

    monkeypatch.setattr(calibrating, "_try", detect_and_fit)
    start = SimpleNamespace(nms_iou=0.3, f1=f1_by_iou[0.3])
    found = calibrating._other_suppressions(None, start, None, None)
    assert seen == tried
    assert [trial.nms_iou for trial in found] == better
