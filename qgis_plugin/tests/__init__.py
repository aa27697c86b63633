"""Tests of the plugin, run in QGIS's own Python by scripts/check-qgis."""
