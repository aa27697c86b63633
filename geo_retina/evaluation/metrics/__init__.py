"""Measure how well matched detections agree with labels."""
