"""Read vector files: labels, areas and detections."""
