"""A QGIS without a window, and programs that stand in for geo-retina."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsProcessingFeedback,
    QgsRectangle,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QCoreApplication, QSettings

PLUGINS = Path("/usr/share/qgis/python/plugins")
_kept: list[Any] = []

FAKE = """#!{python}
import json, os, signal, sys, time
def say(event, **values):
    print(json.dumps(dict(event=event, **values)), flush=True)
arguments = sys.argv[1:]
behaviour = {behaviour!r}
with open({log!r}, "a") as file:
    json.dump(arguments, file); file.write("\\n")
if arguments[:1] == ["--api"]:
    if behaviour.get("old"):
        print('geo-retina: Unknown option: "--api".', file=sys.stderr); sys.exit(2)
    names = ["detect", "plan", "filter", "merge", "check-labels", "train", "evaluate", "compare",
             "review", "estimate"]
    names = [name for name in names if name not in behaviour.get("without", ())]
    print(json.dumps(dict(protocol=behaviour.get("protocol", 1), geo_retina="9.9", python="3.12",
        commands={{name: [] for name in names}}, models=behaviour.get("models", []))))
    sys.exit(0)
command = arguments[0]
outs = [a.partition("=")[2] for a in arguments if a.startswith("--out=")]
say("started", protocol=1, geo_retina="9.9", command=command)
for event in behaviour.get("events", {{}}).get(command, []):
    say(**event)
if behaviour.get("waits") == command:
    def stop(*_):
        say("finished", command=command, code=130, error="interrupted", result=None); sys.exit(130)
    signal.signal(signal.SIGTERM, stop)
    open({log!r} + ".waits", "w").close()
    time.sleep(60)
if behaviour.get("dies") == command:
    print("Segmentation fault", file=sys.stderr); os._exit(139)
source = behaviour.get("writes")
for out in outs:
    if source and out.endswith(".gpkg"):
        import shutil; shutil.copy(source, out)
code, error = behaviour.get("ends", {{}}).get(command, (0, None))
result = behaviour.get("results", {{}}).get(command, {{}})
say("finished", command=command, code=code, error=error, result=None if error else result)
sys.exit(code)
"""


def start_qgis() -> QgsApplication:
    """Start QGIS once, with settings of its own that nobody else reads."""
    if QgsApplication.instance() is None:
        profile = tempfile.mkdtemp(prefix="geo-retina-qgis-")
        QSettings.setDefaultFormat(QSettings.Format.IniFormat)
        QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, profile)
        QCoreApplication.setOrganizationName("geo-retina-tests")
        QgsApplication.setPrefixPath(os.environ.get("QGIS_PREFIX_PATH", "/usr"), True)
        application = QgsApplication([b""], True)
        application.initQgis()
        _kept.append(application)
        sys.path.append(os.environ.get("QGIS_PLUGINS", str(PLUGINS)))
        from processing.core.Processing import Processing

        from geo_retina.provider import GeoRetinaProvider

        Processing.initialize()
        provider = GeoRetinaProvider()
        QgsApplication.processingRegistry().addProvider(provider)
        _kept.append(provider)
    return QgsApplication.instance()


def fake_program(folder: Path, **behaviour: Any) -> Path:
    """Write a program that answers as a geo-retina does, and writes down how it was called."""
    path = folder / "geo-retina"
    log = str(folder / "calls.jsonl")
    path.write_text(FAKE.format(python=sys.executable, behaviour=behaviour, log=log))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def calls_of(program: Path) -> list[list[str]]:
    """List how a program was called, without the questions what it offers."""
    lines = (program.parent / "calls.jsonl").read_text().splitlines()
    return [call for call in map(json.loads, lines) if call[0] != "--api"]


class Feedback(QgsProcessingFeedback):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__(False)
        self.infos: list[str] = []
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.texts: list[str] = []
        self.console: list[str] = []
        self.fractions: list[float] = []
        self.progressChanged.connect(self.fractions.append)

    def pushInfo(self, text: str) -> None:
        self.infos.append(text)

    def pushWarning(self, text: str) -> None:
        self.warnings.append(text)

    def reportError(self, text: str, fatalError: bool = False) -> None:
        self.errors.append(text)

    def setProgressText(self, text: str) -> None:
        self.texts.append(text)

    def pushConsoleInfo(self, text: str) -> None:
        self.console.append(text)

    def pushCommandInfo(self, text: str) -> None:
        pass


def write_layer(path: Path, name: str, boxes: list[tuple[float, ...]], /, **columns: list) -> str:
    """Add a layer of rectangles to a GeoPackage, and give its address for QGIS."""
    fields = "".join(
        f"&field={column}:{'double' if isinstance(values[0], float) else 'string'}"
        for column, values in columns.items()
    )
    layer = QgsVectorLayer(f"Polygon?crs=EPSG:32632{fields}", name, "memory")
    features = []
    for row, box in enumerate(boxes):
        feature = QgsFeature(layer.fields())
        feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(*box)))
        feature.setAttributes([values[row] for values in columns.values()])
        features.append(feature)
    layer.dataProvider().addFeatures(features)
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName, options.layerName = "GPKG", name
    if path.exists():
        options.actionOnExistingFile = QgsVectorFileWriter.CreateOrOverwriteLayer
    context = layer.transformContext()
    error, *_ = QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(path), context, options)
    assert error == QgsVectorFileWriter.NoError
    return f"{path}|layername={name}"
