"""Match detections with labels, one to one."""
