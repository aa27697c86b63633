"""Detections and labels as an evaluation takes them."""
