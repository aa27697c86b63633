"""Loads vector files in QGIS, with the styles they bring along, and draws them.

Run by QGIS's own Python, apart from the tests': /usr/bin/python3 render_in_qgis.py OUT.png FILE...
Prints one line of JSON: what QGIS saw in each layer.
"""

import json
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def describe(layer):
    renderer = layer.renderer()
    colours = {}
    if renderer.type() == "categorizedSymbol":
        for category in renderer.categories():
            symbol = category.symbol().symbolLayer(0)
            colours[str(category.value())] = symbol.strokeColor().name()
    return {
        "name": layer.name(),
        "features": layer.featureCount(),
        "fields": [field.name() for field in layer.fields()],
        "crs": layer.crs().authid(),
        "geometry": layer.geometryType(),
        "renderer": renderer.type(),
        "colours": colours,
    }


def load(path, name):
    layer = QgsVectorLayer(path, name, "ogr")
    if not layer.isValid():
        raise SystemExit(f"QGIS cannot load {path}")
    return layer


def draw(layers, path):
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setBackgroundColor(QColor("#404040"))
    settings.setOutputSize(QSize(900, 500))
    settings.setDestinationCrs(layers[0].crs())
    extent = layers[0].extent()
    extent.scale(1.05)
    settings.setExtent(extent)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(path)


def main(picture, *paths):
    application = QgsApplication([], False)
    application.initQgis()
    layers = []
    for path in paths:
        if path.endswith(".gpkg"):
            names = ("detections", "not_covered", "scanned")
            layers += [load(f"{path}|layername={name}", name) for name in names]
        else:
            layers.append(load(path, os.path.basename(path)))
    draw(layers, picture)
    sys.stdout.write(json.dumps([describe(layer) for layer in layers]) + "\n")
    del layers
    application.exitQgis()


if __name__ == "__main__":
    main(*sys.argv[1:])
