"""What pytest must not import: a script for another program's Python."""

collect_ignore = ["render_in_qgis.py"]
