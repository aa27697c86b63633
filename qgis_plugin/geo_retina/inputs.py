"""Turn what QGIS holds into files that another program can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFeatureSink,
    QgsFields,
    QgsGeometry,
    QgsProcessingException,
    QgsProviderRegistry,
    QgsVectorFileWriter,
    QgsWkbTypes,
)

DETECTIONS = "detections"
"""Layer of a GeoPackage that every command reads where none is named."""


def raster_path(layer: Any) -> str:
    """Give the path, address or name in GDAL's words of a raster layer.

    Raises:
        QgsProcessingException: it is no file that GDAL reads, such as a web map.
    """
    if layer.providerType() != "gdal":
        raise QgsProcessingException(
            f"the layer {layer.name()} comes from {layer.providerType()}, expected a file or an "
            "address that GDAL reads; save it as a GeoTIFF first"
        )
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    path = parts.get("path") or layer.source()
    if parts.get("layerName"):
        return layer.source()  # one raster inside a file, in GDAL's own words
    return f"{parts.get('vsiPrefix') or ''}{path}{parts.get('vsiSuffix') or ''}"


def write_features(source: Any, path: Path, feedback: Any) -> Path:
    """Write what a processing source gives, its selection and filter applied, into one layer.

    Args:
        source: a QgsProcessingFeatureSource or vector layer.
        path: file to write, ending .gpkg.
        feedback: stops it.

    Raises:
        QgsProcessingException: it cannot be written.
    """
    fields = QgsFields()
    names = [field.name() for field in source.fields()]
    for field in source.fields():
        # A row number of the file it came from would meet that of the new file.
        if field.name().lower() != "fid":
            fields.append(field)
    chosen = [names.index(field.name()) for field in fields]
    writer = _writer(path, fields, source.wkbType(), source.sourceCrs(), feedback)
    for feature in source.getFeatures():
        if feedback.isCanceled():
            break
        copy = QgsFeature(fields)
        copy.setAttributes([feature.attributes()[i] for i in chosen])
        copy.setGeometry(feature.geometry())
        if not writer.addFeature(copy, QgsFeatureSink.FastInsert):
            raise QgsProcessingException(f"{path} cannot be written: {writer.errorMessage()}")
    del writer  # closes the file
    return path


def write_polygon(geometry: Any, crs: Any, path: Path, feedback: Any) -> Path:
    """Write one polygon, such as an extent, into a layer.

    Raises:
        QgsProcessingException: it cannot be written.
    """
    polygon = QgsGeometry(geometry)
    polygon.convertToMultiType()
    writer = _writer(path, QgsFields(), QgsWkbTypes.MultiPolygon, crs, feedback)
    feature = QgsFeature()
    feature.setGeometry(polygon)
    if not writer.addFeature(feature, QgsFeatureSink.FastInsert):
        raise QgsProcessingException(f"{path} cannot be written: {writer.errorMessage()}")
    del writer
    return path


def _writer(path: Path, fields: Any, kind: Any, crs: Any, feedback: Any) -> Any:
    from qgis.core import QgsProject

    if not crs.isValid():
        feedback.pushWarning(f"what is written to {path.name} has no CRS")
        crs = QgsCoordinateReferenceSystem()
    path.parent.mkdir(parents=True, exist_ok=True)
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = path.stem
    context = QgsProject.instance().transformContext()
    writer = QgsVectorFileWriter.create(str(path), fields, kind, crs, context, options)
    if writer.hasError() != QgsVectorFileWriter.NoError:
        raise QgsProcessingException(f"{path} cannot be written: {writer.errorMessage()}")
    return writer


def layer_file(layer: Any) -> tuple[str, str | None]:
    """Give the file of a vector layer and the layer's name in it.

    Raises:
        QgsProcessingException: it is no file.
    """
    if layer.providerType() != "ogr":
        raise QgsProcessingException(
            f"the layer {layer.name()} comes from {layer.providerType()}, expected a file that "
            "geo-retina wrote; save it as a GeoPackage first"
        )
    parts = QgsProviderRegistry.instance().decodeUri("ogr", layer.source())
    return parts["path"], parts.get("layerName") or None
