"""What a run has done so far, on disk: its folder, its manifest, and the results of its blocks."""
