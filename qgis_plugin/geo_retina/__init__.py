"""Detect objects in imagery from within QGIS, with the geo-retina that the user has.

This folder runs in QGIS's own Python, on PyQGIS and the standard library alone. geo-retina runs in
a process and an environment of its own.
"""

from __future__ import annotations


def classFactory(iface):
    """Make the plugin, as QGIS asks for it.

    Args:
        iface: QGIS's window; None in qgis_process.
    """
    from .plugin import GeoRetinaPlugin

    return GeoRetinaPlugin(iface)
