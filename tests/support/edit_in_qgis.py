"""Edit a file under review through QGIS's own editing, as a person's clicks do.

Run by a Python that has PyQGIS: ``python3 edit_in_qgis.py FILE``. Prints what QGIS made of the
layers, as JSON.
"""

import json
import sys


def main(path):
    """Open both layers, enter something of each kind, and save."""
    from qgis.core import (
        QgsApplication,
        QgsFeatureRequest,
        QgsGeometry,
        QgsVectorLayer,
        QgsVectorLayerUtils,
    )

    application = QgsApplication([], True)
    application.initQgis()
    review = QgsVectorLayer(f"{path}|layername=review", "review", "ogr")
    cells = QgsVectorLayer(f"{path}|layername=cells", "cells", "ogr")
    status = review.fields().indexOf("status")
    seen = {
        "fields": [field.name() for field in review.fields()],
        "coloured_by": [each.renderer().classAttribute() for each in (review, cells)],
        "statuses": [category.value() for category in review.renderer().categories()],
        "drop_down": review.editorWidgetSetup(status).type(),
        "choices": [next(iter(each)) for each in review.editorWidgetSetup(status).config()["map"]],
        "hidden": review.editorWidgetSetup(review.fields().indexOf("case_id")).type(),
        "sorted_by": review.attributeTableConfig().sortExpression(),
    }
    first, second, third, fourth = review.getFeatures(QgsFeatureRequest().setLimit(4))
    review.startEditing()
    review.changeAttributeValue(first.id(), status, "accepted")
    moved = QgsGeometry(second.geometry())
    moved.translate(1, 1)
    review.changeGeometry(second.id(), moved)
    review.changeAttributeValue(second.id(), status, "changed")
    review.deleteFeature(third.id())
    elsewhere = QgsGeometry(fourth.geometry())
    elsewhere.translate(3, 0)
    added = QgsVectorLayerUtils.createFeature(review, elsewhere, {})
    seen["new_feature"] = {name: added[name] for name in ("status", "weight")}
    added["class"] = "a"
    review.addFeature(added)
    seen["saved"] = [review.commitChanges()]
    cells.startEditing()
    cell = next(cells.getFeatures())
    cells.changeAttributeValue(cell.id(), cells.fields().indexOf("status"), "done")
    seen["saved"].append(cells.commitChanges())
    del review, cells
    application.exitQgis()
    sys.stdout.write(f"{json.dumps(seen)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
